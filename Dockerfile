# One image for the backend and for the page, with a GPU or without: torch's Linux package has both.
FROM python:3.12-slim

RUN useradd --create-home editlab && mkdir /sessions /cache && chown editlab /sessions /cache

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE app.ipynb ./
COPY editlab editlab
COPY data data
RUN pip install --no-cache-dir -c constraints.txt '.[postgres,ray]' && rm -r /src/*

USER editlab
WORKDIR /home/editlab
ENV EDITLAB_CACHE=/cache HF_HOME=/cache/huggingface EDITLAB_STORE=/sessions/sessions.sqlite
VOLUME ["/sessions", "/cache"]
ENTRYPOINT ["editlab"]
CMD ["--help"]

"""The parts of the page. A panel draws what it is given and calls back when it is used; it never calls the lab."""

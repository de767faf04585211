"""The panels of the page. A panel draws records and calls back when used; it never calls the lab."""

"""The file: everything that touches SQLite, the locks beside it and the clock kept in it."""

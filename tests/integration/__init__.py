"""Support: tests of several modules over real sockets, files and processes."""

"""The notebook's end of a remote cell: kernel, magics, options, status line."""

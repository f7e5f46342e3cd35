"""The page: what a project's owner sees in a browser, one module for each part."""

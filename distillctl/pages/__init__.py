"""Pages for a browser, each one self-contained file, and plots for papers. What they show was computed elsewhere."""

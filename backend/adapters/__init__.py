"""One module or package per neighbour: the LLM server, Label Studio, the database, the jobs."""

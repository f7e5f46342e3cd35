"""Values and ports that every package shares: questions, labels, projects, rounds."""

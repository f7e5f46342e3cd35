"""Order the annotation queue: query strategies and their diagnostics. numpy only."""

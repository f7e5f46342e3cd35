"""Talk to Label Studio: its API, events, label configs and result JSON."""

"""The domain: values, ports and numerics, without any input or output."""

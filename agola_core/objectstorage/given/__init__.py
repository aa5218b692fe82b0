"""Object storage on an fsspec file system that the user gives, once a probe has found that it behaves as it must."""

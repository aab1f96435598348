"""A Kling-compatible video API in your own AWS account: everything that the functions share."""

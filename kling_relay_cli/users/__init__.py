"""Commands of users: they take an API URL and an API key, and need no AWS credentials. There is none yet."""

"""The whole way in small: real photos that installed packages ship, two processes, one clip."""

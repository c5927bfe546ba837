//! Adapters behind the ports that `auth` and `limits` define.

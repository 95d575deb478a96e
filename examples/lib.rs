//! Programs that use only the SDK; each is a file beside this one.

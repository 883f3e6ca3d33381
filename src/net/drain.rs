//! Draining: stop accepting, let running work finish, then end.

//! Lines, dots and lengths: finding where a line or a body ends, without ever buffering more than its bound.

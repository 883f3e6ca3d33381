//! A catalog engine that fails or stops at the n-th call.

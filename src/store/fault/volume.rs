//! A volume that fails or stops at the n-th call.

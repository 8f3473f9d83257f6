//! Conformance and benchmark guests, assembled in Rust.

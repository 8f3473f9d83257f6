//! IEEE 754 arithmetic in integer operations.

//! The machine: guest memory, bus, devices and harts put together, and the threads that run them.

pub mod spec;

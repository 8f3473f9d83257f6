//! The x86 guests.

pub mod kvm;

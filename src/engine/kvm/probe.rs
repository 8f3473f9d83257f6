//! What kind of KVM this is.

use super::KvmError;
use super::vm::Host;

/// Whether there is a KVM that can be used.
///
/// # Errors
/// Why there is none.
pub fn open() -> Result<(), KvmError> {
    Host::open().map(drop)
}

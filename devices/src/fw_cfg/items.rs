//! The items of a firmware configuration device and their directory.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Numbers of the items that have one of their own. Numbers are little-endian in items of their
/// own and big-endian in the file directory.
pub mod key {
    /// "QEMU"; always there.
    pub const SIGNATURE: u16 = 0x00;
    /// Features, 4 bytes; always there.
    pub const ID: u16 = 0x01;
    /// The machine's UUID, 16 bytes.
    pub const UUID: u16 = 0x02;
    /// Bytes of RAM, 8 bytes.
    pub const RAM_SIZE: u16 = 0x03;
    /// Whether there is no display, 2 bytes.
    pub const NO_GRAPHIC: u16 = 0x04;
    /// CPUs at start, 2 bytes.
    pub const CPUS: u16 = 0x05;
    /// Where the kernel shall lie, 4 bytes.
    pub const KERNEL_ADDR: u16 = 0x07;
    /// Bytes in [`KERNEL_DATA`], 4 bytes.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Where the initrd shall lie, 4 bytes.
    pub const INITRD_ADDR: u16 = 0x0a;
    /// Bytes in [`INITRD_DATA`], 4 bytes.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// Letter of the boot device, 2 bytes.
    pub const BOOT_DEVICE: u16 = 0x0c;
    /// Whether the boot menu is shown, 2 bytes.
    pub const BOOT_MENU: u16 = 0x0e;
    /// CPUs at most (on a PC: the limit of APIC ids), 2 bytes.
    pub const MAX_CPUS: u16 = 0x0f;
    /// Where the kernel is entered, 4 bytes.
    pub const KERNEL_ENTRY: u16 = 0x10;
    /// The kernel.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initrd.
    pub const INITRD_DATA: u16 = 0x12;
    /// Where the command line shall lie, 4 bytes.
    pub const CMDLINE_ADDR: u16 = 0x13;
    /// Bytes in [`CMDLINE_DATA`], 4 bytes.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// The command line with the NUL at its end.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// Where the kernel's setup code shall lie, 4 bytes.
    pub const SETUP_ADDR: u16 = 0x16;
    /// Bytes in [`SETUP_DATA`], 4 bytes.
    pub const SETUP_SIZE: u16 = 0x17;
    /// The kernel's setup code.
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory of files; made by [`FwCfgItems`](super::FwCfgItems).
    pub const FILE_DIR: u16 = 0x19;
    /// The first file.
    pub const FILE_FIRST: u16 = 0x20;
    /// Set in the numbers of items that belong to one architecture.
    pub const ARCH_LOCAL: u16 = 0x8000;
}

/// Set in a selector by who wants to write; no part of the number.
const WRITE_CHANNEL: u16 = 0x4000;
/// Number of generic items, files included.
const GENERIC_ITEMS: usize = 0x4000;
/// Bytes of a file's name in the directory, the NUL included.
const NAME_BYTES: usize = 56;
/// [`key::ID`]: the traditional interface (bit 0) and DMA (bit 1).
const FEATURES: u32 = 3;

/// Why an item was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The directory's names are 1 to 55 ASCII characters without NUL.
    #[error("{0:?} cannot name a fw_cfg file: 1 to 55 ASCII characters")]
    Name(String),
    /// There is a file of that name.
    #[error("two fw_cfg files are named {0:?}")]
    Duplicate(String),
    /// Item numbers are used up.
    #[error("more than {} fw_cfg files", GENERIC_ITEMS - key::FILE_FIRST as usize)]
    Full,
    /// Sizes have 32 bits.
    #[error("fw_cfg item {0} has 4 GiB or more")]
    Size(String),
    /// The number belongs to the device, to a file, or to nothing.
    #[error("fw_cfg item number {0:#x} cannot be set")]
    Key(u16),
}

/// What a firmware configuration device shows. Fixed once the device is made.
#[derive(Clone, Debug)]
pub struct FwCfgItems {
    numbered: BTreeMap<u16, Arc<[u8]>>,
    /// The n-th has the number `FILE_FIRST + n`.
    files: BTreeMap<String, Arc<[u8]>>,
    /// The files in the order of their numbers, and the directory that lists them.
    order: Vec<Arc<[u8]>>,
    directory: Vec<u8>,
}

impl Default for FwCfgItems {
    fn default() -> Self {
        Self::new()
    }
}

impl FwCfgItems {
    /// The signature, the features and an empty directory.
    pub fn new() -> Self {
        let numbered =
            [(key::SIGNATURE, Arc::from(*b"QEMU")), (key::ID, Arc::from(FEATURES.to_le_bytes()))];
        Self {
            numbered: numbered.into_iter().collect(),
            files: BTreeMap::new(),
            order: Vec::new(),
            directory: vec![0; 4],
        }
    }

    /// Sets a numbered item ([`key`]), replacing an earlier one.
    pub fn set(&mut self, key: u16, bytes: impl Into<Arc<[u8]>>) -> Result<(), ItemError> {
        let number = key & !key::ARCH_LOCAL;
        let own = [key::SIGNATURE, key::ID, key::FILE_DIR].contains(&key);
        if own || key & WRITE_CHANNEL != 0 || number >= key::FILE_FIRST {
            return Err(ItemError::Key(key));
        }
        let bytes = sized(format_args!("{key:#x}"), bytes.into())?;
        self.numbered.insert(key, bytes);
        Ok(())
    }

    /// Sets a numbered item to a 2-byte number.
    pub fn set_u16(&mut self, key: u16, value: u16) -> Result<(), ItemError> {
        self.set(key, value.to_le_bytes())
    }

    /// Sets a numbered item to a 4-byte number.
    pub fn set_u32(&mut self, key: u16, value: u32) -> Result<(), ItemError> {
        self.set(key, value.to_le_bytes())
    }

    /// Sets a kernel for the firmware to start: data and size.
    pub fn set_kernel(&mut self, kernel: impl Into<Arc<[u8]>>) -> Result<(), ItemError> {
        self.set_sized(key::KERNEL_DATA, key::KERNEL_SIZE, kernel.into())
    }

    /// Sets the initrd that goes with the kernel: data and size.
    pub fn set_initrd(&mut self, initrd: impl Into<Arc<[u8]>>) -> Result<(), ItemError> {
        self.set_sized(key::INITRD_DATA, key::INITRD_SIZE, initrd.into())
    }

    /// Sets the command line that goes with the kernel, NUL-terminated: data and size.
    pub fn set_cmdline(&mut self, cmdline: &str) -> Result<(), ItemError> {
        let bytes: Vec<u8> = cmdline.bytes().chain([0]).collect();
        self.set_sized(key::CMDLINE_DATA, key::CMDLINE_SIZE, bytes.into())
    }

    fn set_sized(&mut self, data: u16, size: u16, bytes: Arc<[u8]>) -> Result<(), ItemError> {
        let len = bytes.len() as u32;
        self.set(data, bytes)?;
        self.set_u32(size, len)
    }

    /// Adds a file, such as `etc/system-states` or `bootorder`. Files are numbered in the order of
    /// their names.
    pub fn add_file(&mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Result<(), ItemError> {
        let fits = (1..NAME_BYTES).contains(&name.len());
        if !fits || !name.is_ascii() || name.contains('\0') {
            return Err(ItemError::Name(name.to_owned()));
        }
        if self.files.contains_key(name) {
            return Err(ItemError::Duplicate(name.to_owned()));
        }
        if self.files.len() >= GENERIC_ITEMS - usize::from(key::FILE_FIRST) {
            return Err(ItemError::Full);
        }
        let bytes = sized(format_args!("{name}"), bytes.into())?;
        self.files.insert(name.to_owned(), bytes);
        self.number_files();
        Ok(())
    }

    /// The number of the file `name`.
    pub fn file_key(&self, name: &str) -> Option<u16> {
        let index = self.files.keys().position(|file| file == name)?;
        Some(key::FILE_FIRST + index as u16)
    }

    fn number_files(&mut self) {
        self.order = self.files.values().cloned().collect();
        self.directory.clear();
        self.directory.extend((self.files.len() as u32).to_be_bytes());
        for ((name, bytes), key) in self.files.iter().zip(key::FILE_FIRST..) {
            self.directory.extend((bytes.len() as u32).to_be_bytes());
            self.directory.extend(key.to_be_bytes());
            self.directory.extend([0; 2]);
            self.directory.extend(name.bytes().chain(std::iter::repeat(0)).take(NAME_BYTES));
        }
    }

    /// The bytes of an item by its number as the guest selects it; none where no item is.
    pub(super) fn get(&self, selector: u16) -> &[u8] {
        let key = selector & !WRITE_CHANNEL;
        if key == key::FILE_DIR {
            return &self.directory;
        }
        let item = match key.checked_sub(key::FILE_FIRST) {
            Some(file) if key & key::ARCH_LOCAL == 0 => self.order.get(usize::from(file)),
            _ => self.numbered.get(&key),
        };
        item.map_or(&[], |bytes| bytes)
    }
}

fn sized(name: std::fmt::Arguments<'_>, bytes: Arc<[u8]>) -> Result<Arc<[u8]>, ItemError> {
    match u32::try_from(bytes.len()) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(ItemError::Size(name.to_string())),
    }
}

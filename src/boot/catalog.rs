//! The catalog of ready guests.

use crate::loader::Isa;

/// A guest of the catalog.
pub struct Guest {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Instruction set of its programs.
    pub isa: Isa,
    /// Memory in bytes unless the user says otherwise.
    pub memory: u64,
    /// Kernel command line, before what depends on the terminal.
    pub cmdline: &'static str,
    /// Where its files come from; `None`: it is part of this program.
    pub(super) source: Option<&'static Source>,
}

/// Where its files come from.
pub(super) struct Source {
    pub(super) packages: &'static [Package],
    /// Approximate download, in MB.
    pub(super) download: u32,
    pub(super) kernel: &'static str,
    pub(super) initrd: Initrd,
}

/// A Debian package.
pub(super) struct Package {
    /// Name; `*` stands for a version.
    pub(super) name: &'static str,
    /// The metapackage that depends on the current version, when the name has a `*`.
    pub(super) metapackage: Option<&'static str>,
    /// Members that are kept: tar pattern, name in the cache.
    pub(super) files: &'static [(&'static str, &'static str)],
}

/// An initial RAM disk.
pub(super) enum Initrd {
    /// None.
    Absent,
    /// This file of the cache.
    File(&'static str),
    /// Made here from files of the cache.
    Busybox {
        /// The busybox.
        busybox: &'static str,
        /// Kernel modules for disks, their file system and virtio devices at fixed addresses, each after those it
        /// needs.
        disk_modules: &'static [&'static str],
    },
    /// The workloads, with kernel and busybox of another guest.
    Bench {
        /// That guest.
        base: &'static str,
        /// Its busybox.
        busybox: &'static str,
    },
}

/// The archive of the workloads' programs in the cache; a new name when its contents change.
pub(super) const BENCH_PROGRAMS: &str = "programs-1.cpio";

/// Command line of Linux on a PC. A busy host may be late with the few ticks by which the kernel looks at its start
/// whether the PIT's interrupts arrive.
const LINUX_ON_PC: &str = "console=ttyS0 quiet no_timer_check";

/// All guests.
pub const GUESTS: &[Guest] = &[
    Guest {
        name: "demo",
        about: "a guest of our own that shows the machine; needs nothing",
        isa: Isa::Riscv64,
        memory: 64 << 20,
        cmdline: "",
        source: None,
    },
    Guest {
        name: "debian-riscv64",
        about: "Debian's RISC-V kernel and a busybox shell",
        isa: Isa::Riscv64,
        memory: 512 << 20,
        cmdline: "console=ttyS0 quiet",
        source: Some(&Source {
            packages: &[
                Package {
                    name: "linux-image-6.12.*-riscv64",
                    metapackage: Some("linux-image-riscv64"),
                    files: &[
                        ("./boot/vmlinux-*", "linux"),
                        ("./usr/lib/modules/*/kernel/lib/crc16.ko.xz", "crc16.ko.xz"),
                        (
                            "./usr/lib/modules/*/kernel/crypto/crc32c_generic.ko.xz",
                            "crc32c_generic.ko.xz",
                        ),
                        ("./usr/lib/modules/*/kernel/fs/mbcache.ko.xz", "mbcache.ko.xz"),
                        ("./usr/lib/modules/*/kernel/fs/jbd2/jbd2.ko.xz", "jbd2.ko.xz"),
                        ("./usr/lib/modules/*/kernel/fs/ext4/ext4.ko.xz", "ext4.ko.xz"),
                        (
                            "./usr/lib/modules/*/kernel/drivers/virtio/virtio_mmio.ko.xz",
                            "virtio_mmio.ko.xz",
                        ),
                        (
                            "./usr/lib/modules/*/kernel/drivers/block/virtio_blk.ko.xz",
                            "virtio_blk.ko.xz",
                        ),
                    ],
                },
                Package {
                    name: "busybox-static",
                    metapackage: None,
                    files: &[("./usr/bin/busybox", "busybox")],
                },
            ],
            download: 113,
            kernel: "linux",
            initrd: Initrd::Busybox {
                busybox: "busybox",
                disk_modules: &[
                    "crc16.ko.xz",
                    "crc32c_generic.ko.xz",
                    "mbcache.ko.xz",
                    "jbd2.ko.xz",
                    "ext4.ko.xz",
                    "virtio_mmio.ko.xz",
                    "virtio_blk.ko.xz",
                ],
            },
        }),
    },
    Guest {
        name: "debian-installer-riscv64",
        about: "Debian's installer for RISC-V, in the terminal",
        isa: Isa::Riscv64,
        memory: 1 << 30,
        cmdline: "console=ttyS0 quiet",
        source: Some(&Source {
            packages: &[Package {
                name: "debian-installer-13-netboot-riscv64",
                metapackage: None,
                files: &[
                    (
                        "./usr/lib/debian-installer/images/13/riscv64/text/debian-installer/riscv64/linux",
                        "linux",
                    ),
                    (
                        "./usr/lib/debian-installer/images/13/riscv64/text/debian-installer/riscv64/initrd.gz",
                        "initrd.gz",
                    ),
                ],
            }],
            download: 53,
            kernel: "linux",
            initrd: Initrd::File("initrd.gz"),
        }),
    },
    Guest {
        name: "bench-riscv64",
        about: "Debian's kernel and a round of workloads, for `mimic compare`",
        isa: Isa::Riscv64,
        memory: 1 << 30,
        cmdline: "console=ttyS0 quiet",
        source: Some(&Source {
            packages: &[],
            download: 29,
            kernel: "linux",
            initrd: Initrd::Bench { base: "debian-riscv64", busybox: "busybox" },
        }),
    },
    Guest {
        name: "debian-amd64",
        about: "Debian's x86-64 kernel for virtual machines and a busybox shell",
        isa: Isa::X86_64,
        memory: 512 << 20,
        cmdline: LINUX_ON_PC,
        source: Some(&Source {
            packages: &[
                Package {
                    name: "linux-image-6.12.*-cloud-amd64",
                    metapackage: Some("linux-image-cloud-amd64"),
                    files: &[
                        ("./boot/vmlinuz-*", "linux"),
                        (
                            "./usr/lib/modules/*/kernel/drivers/virtio/virtio_mmio.ko.xz",
                            "virtio_mmio.ko.xz",
                        ),
                        (
                            "./usr/lib/modules/*/kernel/drivers/block/virtio_blk.ko.xz",
                            "virtio_blk.ko.xz",
                        ),
                    ],
                },
                Package {
                    name: "busybox-static",
                    metapackage: None,
                    files: &[("./usr/bin/busybox", "busybox")],
                },
            ],
            download: 35,
            kernel: "linux",
            initrd: Initrd::Busybox {
                busybox: "busybox",
                disk_modules: &["virtio_mmio.ko.xz", "virtio_blk.ko.xz"],
            },
        }),
    },
    Guest {
        name: "debian-installer-amd64",
        about: "Debian's installer for x86-64, in the terminal",
        isa: Isa::X86_64,
        memory: 1 << 30,
        cmdline: LINUX_ON_PC,
        source: Some(&Source {
            packages: &[Package {
                name: "debian-installer-13-netboot-amd64",
                metapackage: None,
                files: &[
                    (
                        "./usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64/linux",
                        "linux",
                    ),
                    (
                        "./usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64/initrd.gz",
                        "initrd.gz",
                    ),
                ],
            }],
            download: 151,
            kernel: "linux",
            initrd: Initrd::File("initrd.gz"),
        }),
    },
    Guest {
        name: "memtest86",
        about: "Memtest86+, which tests the memory of x86-64 machines, on the serial port",
        isa: Isa::X86_64,
        memory: 64 << 20,
        cmdline: "console=ttyS0,115200",
        source: Some(&Source {
            packages: &[Package {
                name: "memtest86+",
                metapackage: None,
                files: &[("./boot/memtest86+x64.bin", "memtest")],
            }],
            download: 1,
            kernel: "memtest",
            initrd: Initrd::Absent,
        }),
    },
    Guest {
        name: "bench-amd64",
        about: "the same workloads for x86-64",
        isa: Isa::X86_64,
        memory: 1 << 30,
        cmdline: LINUX_ON_PC,
        source: Some(&Source {
            packages: &[],
            download: 31,
            kernel: "linux",
            initrd: Initrd::Bench { base: "debian-amd64", busybox: "busybox" },
        }),
    },
];

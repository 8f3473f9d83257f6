//! The device tree, from plain data to the flattened form.
//!
//! A board describes itself by a [`DeviceTree`]: harts, memory, and one [`Node`] for each device
//! of its placement list, made by the constructors here ([`Node::uart16550`], [`Node::plic`], ...)
//! or by hand. [`DeviceTree::flatten`] turns that into the bytes a guest finds at `a1`.
//!
//! Interrupt wiring needs phandles: those of harts are functions of their index
//! ([`cpu_phandle`], [`cpu_intc_phandle`]), the PLIC's and the test finisher's are constants;
//! other nodes may use numbers from [`FIRST_FREE_PHANDLE`] up.
//!
//! Sources: Devicetree Specification 0.4; the bindings of Linux 6.12
//! (Documentation/devicetree/bindings), named at each constructor.

use vm_fdt::FdtWriter;

/// Phandle of the PLIC, the interrupt parent of every device under `/soc`.
pub const PLIC_PHANDLE: u32 = 1;
/// Phandle of the test finisher, which the `syscon-...` nodes refer to.
pub const FINISHER_PHANDLE: u32 = 2;
/// Phandles from here on are free for nodes made by hand.
pub const FIRST_FREE_PHANDLE: u32 = 0x1_0000;
const FIRST_CPU_PHANDLE: u32 = 0x100;

/// Phandle of the `index`th hart's node.
pub const fn cpu_phandle(index: u32) -> u32 {
    FIRST_CPU_PHANDLE + 2 * index
}

/// Phandle of the `index`th hart's own interrupt controller.
pub const fn cpu_intc_phandle(index: u32) -> u32 {
    cpu_phandle(index) + 1
}

/// Interrupt numbers at a hart's interrupt controller: `mcause` without its top bit.
mod irq {
    pub(super) const M_SOFT: u32 = 3;
    pub(super) const M_TIMER: u32 = 7;
    pub(super) const S_EXTERNAL: u32 = 9;
    pub(super) const M_EXTERNAL: u32 = 11;
}

/// A device tree that cannot be written: a name or string with a NUL or other invalid character,
/// or a phandle used twice.
#[derive(Debug, thiserror::Error)]
#[error("device tree: {0}")]
pub struct FdtError(#[from] vm_fdt::Error);

/// A whole machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceTree {
    /// Human-readable name of the board.
    pub model: String,
    /// `compatible` of the board, most specific first.
    pub compatible: Vec<String>,
    /// The harts, in the order of their index.
    pub cpus: Vec<CpuNode>,
    /// Frequency of `mtime` in Hz.
    pub timebase_frequency: u32,
    /// RAM: (base, size) in bytes.
    pub memory: Vec<(u64, u64)>,
    /// Parts of RAM that are not the guest's.
    pub reserved: Vec<ReservedMemory>,
    /// What the boot loader tells the guest.
    pub chosen: Chosen,
    /// (alias, path), such as `serial0` for the console.
    pub aliases: Vec<(String, String)>,
    /// Nodes below the root: `syscon-...`, flash, fw_cfg.
    pub nodes: Vec<Node>,
    /// Nodes below `/soc`, whose interrupts go to the PLIC.
    pub soc: Vec<Node>,
}

/// One hart (binding riscv/cpus.yaml, riscv/extensions.yaml).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuNode {
    /// Hart id.
    pub hart_id: u32,
    /// `riscv,isa`: the ISA string, lower case, such as `rv64imafdc_zicsr_zifencei_sstc`.
    pub isa: String,
    /// `riscv,isa-extensions`: single extensions, such as `i`, `m`, `zicsr`.
    pub extensions: Vec<String>,
    /// The largest page table.
    pub mmu: Mmu,
    /// Block size of Zicbom in bytes, if the hart has it.
    pub cbom_block_size: Option<u32>,
    /// Block size of Zicbop in bytes, if the hart has it.
    pub cbop_block_size: Option<u32>,
    /// Block size of Zicboz in bytes, if the hart has it.
    pub cboz_block_size: Option<u32>,
}

/// `mmu-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mmu {
    /// Three levels.
    Sv39,
    /// Four levels.
    Sv48,
    /// Five levels.
    Sv57,
}

impl Mmu {
    fn name(self) -> &'static str {
        match self {
            Mmu::Sv39 => "riscv,sv39",
            Mmu::Sv48 => "riscv,sv48",
            Mmu::Sv57 => "riscv,sv57",
        }
    }
}

/// A child of `/reserved-memory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedMemory {
    /// Node name without the address.
    pub name: String,
    /// First byte.
    pub base: u64,
    /// Number of bytes.
    pub size: u64,
    /// The guest must not even map it: right for memory that PMP denies.
    pub no_map: bool,
}

/// `/chosen`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Kernel command line.
    pub bootargs: Option<String>,
    /// Initial RAM disk: first byte and the byte after the last.
    pub initrd: Option<(u64, u64)>,
    /// Path of the console device.
    pub stdout_path: Option<String>,
    /// Entropy for the guest's random number generator.
    pub rng_seed: Option<[u8; 32]>,
    /// Entropy for the kernel's load address.
    pub kaslr_seed: Option<u64>,
}

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Present, without a value.
    Empty,
    /// 32-bit cells.
    Cells(Vec<u32>),
    /// 64-bit numbers, two cells each.
    Cells64(Vec<u64>),
    /// Strings.
    Strings(Vec<String>),
    /// Bytes as they are.
    Bytes(Vec<u8>),
}

/// A device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Name without the address, which is taken from `reg`.
    pub name: String,
    /// Most specific first.
    pub compatible: Vec<String>,
    /// (base, size) in bytes.
    pub reg: Vec<(u64, u64)>,
    /// Sources of the PLIC.
    pub interrupts: Vec<u32>,
    /// Number by which other nodes refer to this one.
    pub phandle: Option<u32>,
    /// All other properties.
    pub props: Vec<(String, Value)>,
}

/// A PCIe host bridge with ECAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciHost {
    /// ECAM: (base, size); 1 MiB per bus.
    pub ecam: (u64, u64),
    /// I/O ports 0..size, seen by the CPU from base: (base, size).
    pub io: (u64, u64),
    /// 32-bit memory, same address on both sides: (base, size).
    pub mmio32: (u64, u64),
    /// 64-bit memory, same address on both sides: (base, size).
    pub mmio64: (u64, u64),
    /// The PLIC sources of INTA..INTD of device 0; device d, pin p has source `(d + p) % 4`.
    pub irqs: [u32; 4],
}

impl Node {
    fn new(name: &str, compatible: &[&str]) -> Self {
        Self { name: name.into(), compatible: strings(compatible), ..Self::default() }
    }

    /// Adds a register range of `size` bytes.
    #[must_use]
    pub fn with_reg(mut self, base: u64, size: u64) -> Self {
        self.reg.push((base, size));
        self
    }

    /// Adds a PLIC source.
    #[must_use]
    pub fn with_interrupt(mut self, source: u32) -> Self {
        self.interrupts.push(source);
        self
    }

    /// Adds a property.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.props.push((name.into(), value));
        self
    }

    /// 16550A with registers one byte apart (serial/8250.yaml); `clock` in Hz.
    pub fn uart16550(base: u64, size: u64, source: u32, clock: u32) -> Self {
        Self::new("serial", &["ns16550a"])
            .with_reg(base, size)
            .with_interrupt(source)
            .with("clock-frequency", Value::Cells(vec![clock]))
    }

    /// virtio over MMIO (virtio/mmio.yaml).
    pub fn virtio_mmio(base: u64, size: u64, source: u32) -> Self {
        Self::new("virtio_mmio", &["virtio,mmio"]).with_reg(base, size).with_interrupt(source)
    }

    /// Goldfish real-time clock (rtc/google,goldfish-rtc.txt).
    pub fn goldfish_rtc(base: u64, size: u64, source: u32) -> Self {
        Self::new("rtc", &["google,goldfish-rtc"]).with_reg(base, size).with_interrupt(source)
    }

    /// SiFive test finisher, which the guest drives as a syscon.
    pub fn test_finisher(base: u64, size: u64) -> Self {
        Self {
            phandle: Some(FINISHER_PHANDLE),
            ..Self::new("test", &["sifive,test1", "sifive,test0", "syscon"]).with_reg(base, size)
        }
    }

    /// Power off by writing `value` to the finisher (power/reset/syscon-poweroff.yaml).
    pub fn syscon_poweroff(value: u32) -> Self {
        Self::syscon("poweroff", "syscon-poweroff", value)
    }

    /// Reboot by writing `value` to the finisher (power/reset/syscon-reboot.yaml).
    pub fn syscon_reboot(value: u32) -> Self {
        Self::syscon("reboot", "syscon-reboot", value)
    }

    fn syscon(name: &str, compatible: &str, value: u32) -> Self {
        Self::new(name, &[compatible])
            .with("regmap", Value::Cells(vec![FINISHER_PHANDLE]))
            .with("offset", Value::Cells(vec![0]))
            .with("value", Value::Cells(vec![value]))
    }

    /// CLINT with the machine software and timer interrupts of harts `0..harts`
    /// (timer/sifive,clint.yaml).
    pub fn clint(base: u64, size: u64, harts: u32) -> Self {
        Self::new("clint", &["sifive,clint0", "riscv,clint0"])
            .with_reg(base, size)
            .with("interrupts-extended", to_harts(harts, [irq::M_SOFT, irq::M_TIMER]))
    }

    /// PLIC with sources `1..=sources` and the contexts M, S of hart 0, M, S of hart 1, ...
    /// (interrupt-controller/sifive,plic-1.0.0.yaml).
    pub fn plic(base: u64, size: u64, sources: u32, harts: u32) -> Self {
        Self {
            phandle: Some(PLIC_PHANDLE),
            ..Self::new("plic", &["sifive,plic-1.0.0", "riscv,plic0"])
                .with_reg(base, size)
                .with("interrupt-controller", Value::Empty)
                .with("#interrupt-cells", Value::Cells(vec![1]))
                .with("#address-cells", Value::Cells(vec![0]))
                .with("riscv,ndev", Value::Cells(vec![sources]))
                .with("interrupts-extended", to_harts(harts, [irq::M_EXTERNAL, irq::S_EXTERNAL]))
        }
    }

    /// CFI flash in banks of equal size (mtd/mtd-physmap.yaml); `bank_width` in bytes.
    pub fn cfi_flash(banks: &[(u64, u64)], bank_width: u32) -> Self {
        Self {
            reg: banks.to_vec(),
            ..Self::new("flash", &["cfi-flash"]).with("bank-width", Value::Cells(vec![bank_width]))
        }
    }

    /// QEMU's firmware configuration device (firmware/qemu,fw-cfg-mmio.yaml).
    pub fn fw_cfg(base: u64, size: u64) -> Self {
        Self::new("fw-cfg", &["qemu,fw-cfg-mmio"])
            .with_reg(base, size)
            .with("dma-coherent", Value::Empty)
    }

    /// PCIe host bridge (pci/host-generic-pci.yaml; IEEE 1275 PCI bus binding for the cells).
    pub fn pci_host(pci: &PciHost) -> Self {
        // phys.hi: space code in bits 25:24. QEMU does not call the 64-bit window prefetchable,
        // so that every 64-bit BAR may go there.
        const IO: u32 = 1 << 24;
        const MEMORY32: u32 = 2 << 24;
        const MEMORY64: u32 = 3 << 24;
        // phys.hi of a device's configuration space: device number in bits 15:11.
        const DEVICE_SHIFT: u32 = 11;
        let halves = |v: u64| [(v >> 32) as u32, v as u32];
        let mut ranges = Vec::new();
        for (space, bus_address, (base, size)) in [
            (IO, 0, pci.io),
            (MEMORY32, pci.mmio32.0, pci.mmio32),
            (MEMORY64, pci.mmio64.0, pci.mmio64),
        ] {
            ranges.push(space);
            ranges.extend([bus_address, base, size].into_iter().flat_map(halves));
        }
        let mut map = Vec::new();
        for device in 0..4 {
            for pin in 1..=4 {
                let source = pci.irqs[(device + pin - 1) % 4];
                let unit = (device as u32) << DEVICE_SHIFT;
                map.extend([unit, 0, 0, pin as u32, PLIC_PHANDLE, source]);
            }
        }
        let last_bus = (pci.ecam.1 >> 20).clamp(1, 256) as u32 - 1;
        Self::new("pci", &["pci-host-ecam-generic"])
            .with_reg(pci.ecam.0, pci.ecam.1)
            .with("device_type", Value::Strings(strings(&["pci"])))
            .with("#address-cells", Value::Cells(vec![3]))
            .with("#size-cells", Value::Cells(vec![2]))
            .with("#interrupt-cells", Value::Cells(vec![1]))
            .with("linux,pci-domain", Value::Cells(vec![0]))
            .with("bus-range", Value::Cells(vec![0, last_bus]))
            .with("dma-coherent", Value::Empty)
            .with("ranges", Value::Cells(ranges))
            .with("interrupt-map-mask", Value::Cells(vec![3 << DEVICE_SHIFT, 0, 0, 7]))
            .with("interrupt-map", Value::Cells(map))
    }

    fn write(&self, fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
        let node = match self.reg.first() {
            Some((base, _)) => fdt.begin_node(&format!("{}@{base:x}", self.name))?,
            None => fdt.begin_node(&self.name)?,
        };
        if !self.compatible.is_empty() {
            fdt.property_string_list("compatible", self.compatible.clone())?;
        }
        if !self.reg.is_empty() {
            fdt.property_array_u64("reg", &ranges(&self.reg))?;
        }
        if !self.interrupts.is_empty() {
            fdt.property_u32("interrupt-parent", PLIC_PHANDLE)?;
            fdt.property_array_u32("interrupts", &self.interrupts)?;
        }
        if let Some(phandle) = self.phandle {
            fdt.property_phandle(phandle)?;
        }
        for (name, value) in &self.props {
            match value {
                Value::Empty => fdt.property_null(name)?,
                Value::Cells(cells) => fdt.property_array_u32(name, cells)?,
                Value::Cells64(cells) => fdt.property_array_u64(name, cells)?,
                Value::Strings(list) => fdt.property_string_list(name, list.clone())?,
                Value::Bytes(bytes) => fdt.property(name, bytes)?,
            }
        }
        fdt.end_node(node)
    }
}

impl DeviceTree {
    /// The device tree blob (DTB version 17).
    pub fn flatten(&self) -> Result<Vec<u8>, FdtError> {
        let mut fdt = FdtWriter::new()?;
        let root = fdt.begin_node("")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_string_list("compatible", self.compatible.clone())?;
        fdt.property_string("model", &self.model)?;
        self.write_chosen(&mut fdt)?;
        if !self.aliases.is_empty() {
            let aliases = fdt.begin_node("aliases")?;
            for (name, path) in &self.aliases {
                fdt.property_string(name, path)?;
            }
            fdt.end_node(aliases)?;
        }
        for &(base, size) in &self.memory {
            let memory = fdt.begin_node(&format!("memory@{base:x}"))?;
            fdt.property_string("device_type", "memory")?;
            fdt.property_array_u64("reg", &[base, size])?;
            fdt.end_node(memory)?;
        }
        self.write_reserved(&mut fdt)?;
        self.write_cpus(&mut fdt)?;
        for node in &self.nodes {
            node.write(&mut fdt)?;
        }
        let soc = fdt.begin_node("soc")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_string("compatible", "simple-bus")?;
        fdt.property_null("ranges")?;
        for node in &self.soc {
            node.write(&mut fdt)?;
        }
        fdt.end_node(soc)?;
        fdt.end_node(root)?;
        Ok(fdt.finish()?)
    }

    fn write_chosen(&self, fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
        let Chosen { bootargs, initrd, stdout_path, rng_seed, kaslr_seed } = &self.chosen;
        let chosen = fdt.begin_node("chosen")?;
        if let Some(bootargs) = bootargs {
            fdt.property_string("bootargs", bootargs)?;
        }
        if let Some((start, end)) = *initrd {
            fdt.property_u64("linux,initrd-start", start)?;
            fdt.property_u64("linux,initrd-end", end)?;
        }
        if let Some(path) = stdout_path {
            fdt.property_string("stdout-path", path)?;
        }
        if let Some(seed) = rng_seed {
            fdt.property("rng-seed", seed)?;
        }
        if let Some(seed) = *kaslr_seed {
            fdt.property_u64("kaslr-seed", seed)?;
        }
        fdt.end_node(chosen)
    }

    fn write_reserved(&self, fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
        if self.reserved.is_empty() {
            return Ok(());
        }
        let reserved = fdt.begin_node("reserved-memory")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_null("ranges")?;
        for ReservedMemory { name, base, size, no_map } in &self.reserved {
            let node = fdt.begin_node(&format!("{name}@{base:x}"))?;
            fdt.property_array_u64("reg", &[*base, *size])?;
            if *no_map {
                fdt.property_null("no-map")?;
            }
            fdt.end_node(node)?;
        }
        fdt.end_node(reserved)
    }

    fn write_cpus(&self, fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
        let cpus = fdt.begin_node("cpus")?;
        fdt.property_u32("#address-cells", 1)?;
        fdt.property_u32("#size-cells", 0)?;
        fdt.property_u32("timebase-frequency", self.timebase_frequency)?;
        for (index, cpu) in (0..).zip(&self.cpus) {
            cpu.write(fdt, index)?;
        }
        let map = fdt.begin_node("cpu-map")?;
        let cluster = fdt.begin_node("cluster0")?;
        for index in 0..self.cpus.len() as u32 {
            let core = fdt.begin_node(&format!("core{index}"))?;
            fdt.property_u32("cpu", cpu_phandle(index))?;
            fdt.end_node(core)?;
        }
        fdt.end_node(cluster)?;
        fdt.end_node(map)?;
        fdt.end_node(cpus)
    }
}

impl CpuNode {
    fn write(&self, fdt: &mut FdtWriter, index: u32) -> Result<(), vm_fdt::Error> {
        let cpu = fdt.begin_node(&format!("cpu@{:x}", self.hart_id))?;
        fdt.property_phandle(cpu_phandle(index))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_u32("reg", self.hart_id)?;
        fdt.property_string("status", "okay")?;
        fdt.property_string("compatible", "riscv")?;
        fdt.property_string("riscv,isa", &self.isa)?;
        fdt.property_string("riscv,isa-base", "rv64i")?;
        fdt.property_string_list("riscv,isa-extensions", self.extensions.clone())?;
        fdt.property_string("mmu-type", self.mmu.name())?;
        for (name, size) in [
            ("riscv,cbom-block-size", self.cbom_block_size),
            ("riscv,cbop-block-size", self.cbop_block_size),
            ("riscv,cboz-block-size", self.cboz_block_size),
        ] {
            if let Some(size) = size {
                fdt.property_u32(name, size)?;
            }
        }
        let intc = fdt.begin_node("interrupt-controller")?;
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_string("compatible", "riscv,cpu-intc")?;
        fdt.property_phandle(cpu_intc_phandle(index))?;
        fdt.end_node(intc)?;
        fdt.end_node(cpu)
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn ranges(list: &[(u64, u64)]) -> Vec<u64> {
    list.iter().flat_map(|&(base, size)| [base, size]).collect()
}

fn to_harts(harts: u32, interrupts: [u32; 2]) -> Value {
    let wire = |hart| interrupts.into_iter().flat_map(move |irq| [cpu_intc_phandle(hart), irq]);
    Value::Cells((0..harts).flat_map(wire).collect())
}

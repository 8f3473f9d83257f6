//! Our device tree, read back by an independent parser. The expected numbers are those of the
//! tree which QEMU 10.0 makes for `-M virt -smp 2 -m 512M` (`-M virt,dumpdtb=FILE`), phandles
//! apart.

use fdt::Fdt;
use fdt::node::FdtNode;
use mimic_firmware::fdt::{
    Chosen, CpuNode, DeviceTree, FIRST_FREE_PHANDLE, Mmu, Node, PciHost, ReservedMemory, Value,
    cpu_intc_phandle, cpu_phandle,
};

fn cpu(hart_id: u32) -> CpuNode {
    CpuNode {
        hart_id,
        isa: "rv64imac_zicsr".into(),
        extensions: ["i", "m", "a", "c", "zicsr"].map(String::from).to_vec(),
        mmu: Mmu::Sv57,
        cbom_block_size: Some(64),
        cbop_block_size: None,
        cboz_block_size: Some(64),
    }
}

fn virt() -> Vec<u8> {
    let pci = PciHost {
        ecam: (0x3000_0000, 0x1000_0000),
        io: (0x300_0000, 0x1_0000),
        mmio32: (0x4000_0000, 0x4000_0000),
        mmio64: (0x4_0000_0000, 0x4_0000_0000),
        irqs: [32, 33, 34, 35],
    };
    let tree = DeviceTree {
        model: "mimic,virt".into(),
        compatible: vec!["riscv-virtio".into()],
        cpus: vec![cpu(0), cpu(1)],
        timebase_frequency: 10_000_000,
        memory: vec![(0x8000_0000, 0x2000_0000)],
        reserved: vec![ReservedMemory {
            name: "firmware".into(),
            base: 0x8000_0000,
            size: 0x1_0000,
            no_map: true,
        }],
        chosen: Chosen {
            bootargs: Some("console=ttyS0".into()),
            initrd: Some((0x8800_0000, 0x8810_0000)),
            stdout_path: Some("/soc/serial@10000000".into()),
            rng_seed: Some([7; 32]),
            kaslr_seed: Some(0x1122_3344_5566_7788),
        },
        aliases: vec![("serial0".into(), "/soc/serial@10000000".into())],
        nodes: vec![
            Node::syscon_poweroff(0x5555),
            Node::syscon_reboot(0x7777),
            Node::cfi_flash(&[(0x2000_0000, 0x200_0000), (0x2200_0000, 0x200_0000)], 4),
            Node::fw_cfg(0x1010_0000, 0x18),
        ],
        soc: vec![
            Node::goldfish_rtc(0x10_1000, 0x1000, 11),
            Node::uart16550(0x1000_0000, 0x100, 10, 3_686_400),
            Node::virtio_mmio(0x1000_1000, 0x1000, 1),
            Node::test_finisher(0x10_0000, 0x1000),
            Node::plic(0xc00_0000, 0x60_0000, 95, 2),
            Node::clint(0x200_0000, 0x1_0000, 2),
            Node::pci_host(&pci),
        ],
    };
    tree.flatten().unwrap()
}

fn cells(node: FdtNode<'_, '_>, property: &str) -> Vec<u32> {
    let value = node.property(property).unwrap_or_else(|| panic!("no {property}")).value;
    value.chunks_exact(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect()
}

fn strings<'a>(node: FdtNode<'_, 'a>, property: &str) -> Vec<&'a str> {
    let value = node.property(property).unwrap_or_else(|| panic!("no {property}")).value;
    let text = std::str::from_utf8(value).unwrap();
    text.strip_suffix('\0').unwrap().split('\0').collect()
}

#[test]
fn harts() {
    let dtb = virt();
    let fdt = Fdt::new(&dtb).unwrap();
    let cpus = fdt.find_node("/cpus").unwrap();
    assert_eq!(cells(cpus, "timebase-frequency"), [0x98_9680]);
    assert_eq!(cells(cpus, "#size-cells"), [0]);
    for hart in 0..2 {
        let cpu = fdt.find_node(&format!("/cpus/cpu@{hart}")).unwrap();
        assert_eq!(strings(cpu, "device_type"), ["cpu"]);
        assert_eq!(strings(cpu, "compatible"), ["riscv"]);
        assert_eq!(strings(cpu, "status"), ["okay"]);
        assert_eq!(strings(cpu, "mmu-type"), ["riscv,sv57"]);
        assert_eq!(strings(cpu, "riscv,isa"), ["rv64imac_zicsr"]);
        assert_eq!(strings(cpu, "riscv,isa-base"), ["rv64i"]);
        assert_eq!(strings(cpu, "riscv,isa-extensions"), ["i", "m", "a", "c", "zicsr"]);
        assert_eq!(cells(cpu, "reg"), [hart]);
        assert_eq!(cells(cpu, "riscv,cbom-block-size"), [0x40]);
        assert_eq!(cells(cpu, "riscv,cboz-block-size"), [0x40]);
        assert!(cpu.property("riscv,cbop-block-size").is_none());
        let intc = fdt.find_node(&format!("/cpus/cpu@{hart}/interrupt-controller")).unwrap();
        assert_eq!(strings(intc, "compatible"), ["riscv,cpu-intc"]);
        assert_eq!(cells(intc, "#interrupt-cells"), [1]);
        assert_eq!(cells(intc, "phandle"), [cpu_intc_phandle(hart)]);
        let core = fdt.find_node(&format!("/cpus/cpu-map/cluster0/core{hart}")).unwrap();
        assert_eq!(cells(core, "cpu"), [cpu_phandle(hart)]);
        assert_eq!(cells(cpu, "phandle"), [cpu_phandle(hart)]);
    }
}

#[test]
fn interrupt_controllers() {
    let dtb = virt();
    let fdt = Fdt::new(&dtb).unwrap();
    let [a, b] = [cpu_intc_phandle(0), cpu_intc_phandle(1)];
    let plic = fdt.find_node("/soc/plic@c000000").unwrap();
    assert_eq!(strings(plic, "compatible"), ["sifive,plic-1.0.0", "riscv,plic0"]);
    assert_eq!(cells(plic, "reg"), [0, 0xc00_0000, 0, 0x60_0000]);
    assert_eq!(cells(plic, "riscv,ndev"), [0x5f]);
    assert_eq!(cells(plic, "interrupts-extended"), [a, 0xb, a, 9, b, 0xb, b, 9]);
    assert_eq!(cells(plic, "#interrupt-cells"), [1]);
    assert_eq!(cells(plic, "#address-cells"), [0]);
    assert!(plic.property("interrupt-controller").is_some());
    let clint = fdt.find_node("/soc/clint@2000000").unwrap();
    assert_eq!(strings(clint, "compatible"), ["sifive,clint0", "riscv,clint0"]);
    assert_eq!(cells(clint, "interrupts-extended"), [a, 3, a, 7, b, 3, b, 7]);

    for (path, source) in [("serial@10000000", 10), ("rtc@101000", 11), ("virtio_mmio@10001000", 1)]
    {
        let device = fdt.find_node(&format!("/soc/{path}")).unwrap();
        assert_eq!(cells(device, "interrupts"), [source], "{path}");
        assert_eq!(cells(device, "interrupt-parent"), cells(plic, "phandle"), "{path}");
    }
}

#[test]
fn devices() {
    let dtb = virt();
    let fdt = Fdt::new(&dtb).unwrap();
    let node = |path: &str| fdt.find_node(path).unwrap_or_else(|| panic!("no {path}"));
    assert_eq!(strings(node("/soc"), "compatible"), ["simple-bus"]);
    assert!(node("/soc").property("ranges").unwrap().value.is_empty());
    assert_eq!(cells(node("/soc/serial@10000000"), "clock-frequency"), [0x38_4000]);
    assert_eq!(strings(node("/soc/serial@10000000"), "compatible"), ["ns16550a"]);
    assert_eq!(strings(node("/soc/rtc@101000"), "compatible"), ["google,goldfish-rtc"]);
    assert_eq!(strings(node("/soc/virtio_mmio@10001000"), "compatible"), ["virtio,mmio"]);
    let finisher = node("/soc/test@100000");
    assert_eq!(strings(finisher, "compatible"), ["sifive,test1", "sifive,test0", "syscon"]);
    for (path, compatible, value) in
        [("/poweroff", "syscon-poweroff", 0x5555), ("/reboot", "syscon-reboot", 0x7777)]
    {
        assert_eq!(strings(node(path), "compatible"), [compatible]);
        assert_eq!(cells(node(path), "value"), [value]);
        assert_eq!(cells(node(path), "offset"), [0]);
        assert_eq!(cells(node(path), "regmap"), cells(finisher, "phandle"));
    }
    let flash = node("/flash@20000000");
    assert_eq!(cells(flash, "bank-width"), [4]);
    assert_eq!(cells(flash, "reg"), [0, 0x2000_0000, 0, 0x200_0000, 0, 0x2200_0000, 0, 0x200_0000]);
    assert_eq!(strings(node("/fw-cfg@10100000"), "compatible"), ["qemu,fw-cfg-mmio"]);
}

#[test]
fn pci_host_bridge() {
    let dtb = virt();
    let fdt = Fdt::new(&dtb).unwrap();
    let pci = fdt.find_node("/soc/pci@30000000").unwrap();
    let plic = cells(fdt.find_node("/soc/plic@c000000").unwrap(), "phandle")[0];
    assert_eq!(strings(pci, "compatible"), ["pci-host-ecam-generic"]);
    assert_eq!(strings(pci, "device_type"), ["pci"]);
    assert_eq!(cells(pci, "bus-range"), [0, 0xff]);
    assert_eq!(
        cells(pci, "ranges"),
        [
            [0x100_0000, 0, 0, 0, 0x300_0000, 0, 0x1_0000],
            [0x200_0000, 0, 0x4000_0000, 0, 0x4000_0000, 0, 0x4000_0000],
            [0x300_0000, 4, 0, 4, 0, 4, 0],
        ]
        .concat()
    );
    assert_eq!(cells(pci, "interrupt-map-mask"), [0x1800, 0, 0, 7]);
    let expected: Vec<u32> = [
        (0, [0x20, 0x21, 0x22, 0x23]),
        (0x800, [0x21, 0x22, 0x23, 0x20]),
        (0x1000, [0x22, 0x23, 0x20, 0x21]),
        (0x1800, [0x23, 0x20, 0x21, 0x22]),
    ]
    .into_iter()
    .flat_map(|(unit, irqs)| {
        (1..).zip(irqs).flat_map(move |(pin, irq)| [unit, 0, 0, pin, plic, irq])
    })
    .collect();
    assert_eq!(cells(pci, "interrupt-map"), expected);
}

#[test]
fn memory_and_boot_loader_data() {
    let dtb = virt();
    let fdt = Fdt::new(&dtb).unwrap();
    let memory = fdt.find_node("/memory@80000000").unwrap();
    assert_eq!(strings(memory, "device_type"), ["memory"]);
    assert_eq!(cells(memory, "reg"), [0, 0x8000_0000, 0, 0x2000_0000]);
    let reserved = fdt.find_node("/reserved-memory/firmware@80000000").unwrap();
    assert_eq!(cells(reserved, "reg"), [0, 0x8000_0000, 0, 0x1_0000]);
    assert!(reserved.property("no-map").is_some());
    assert_eq!(fdt.chosen().bootargs(), Some("console=ttyS0"));
    assert_eq!(fdt.chosen().stdout().unwrap().name, "serial@10000000");
    let chosen = fdt.find_node("/chosen").unwrap();
    assert_eq!(cells(chosen, "linux,initrd-start"), [0, 0x8800_0000]);
    assert_eq!(cells(chosen, "linux,initrd-end"), [0, 0x8810_0000]);
    assert_eq!(chosen.property("rng-seed").unwrap().value, [7; 32]);
    assert_eq!(cells(chosen, "kaslr-seed"), [0x1122_3344, 0x5566_7788]);
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let tree = |node| DeviceTree { soc: vec![node], ..DeviceTree::default() };
    let bootargs = DeviceTree {
        chosen: Chosen { bootargs: Some("a\0b".into()), ..Chosen::default() },
        ..DeviceTree::default()
    };
    assert!(bootargs.flatten().is_err(), "NUL in a string");
    let name = Node { name: "a b".into(), ..Node::default() };
    assert!(tree(name).flatten().is_err(), "blank in a node name");
    let phandle = |name: &str| Node {
        name: name.into(),
        phandle: Some(FIRST_FREE_PHANDLE),
        props: vec![("x".into(), Value::Empty)],
        ..Node::default()
    };
    let twice = DeviceTree { soc: vec![phandle("a"), phandle("b")], ..DeviceTree::default() };
    assert!(twice.flatten().is_err(), "phandle used twice");
    assert!(tree(phandle("a")).flatten().is_ok());
}

//! gdb itself on code of 16, 32 and 64 bits: what it disassembles, its registers and the stack. Skipped where
//! `gdb-multiarch` is not installed.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use iced_x86::code_asm::*;
use support::{Program, mimic};

/// A ROM of 64 KiB: where its code of 16 bits and of 32 bits begins, and the loop that that ends in.
const ROM: u64 = 0xf_0000;
const START: u64 = 0x1000;
const WIDE: u64 = 0x2000;
const LOOP: u64 = WIDE + 12;
const GDT: u64 = 0x3000;

fn rom() -> Vec<u8> {
    let mut rom = vec![0xf4; 0x1_0000];
    let mut place = |at: u64, bytes: &[u8]| {
        rom[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    let mut a = CodeAssembler::new(16).unwrap();
    a.mov(ax, 0x2000).unwrap();
    a.mov(ss, ax).unwrap();
    a.mov(sp, 0x100).unwrap();
    a.mov(bx, 0x5678).unwrap();
    a.push(bx).unwrap();
    a.db(&[0x2e, 0x0f, 0x01, 0x16]).unwrap(); // LGDT CS:[GDT]
    a.dw(&[GDT as u16]).unwrap();
    a.mov(eax, cr0).unwrap();
    a.or(al, 1).unwrap();
    a.mov(cr0, eax).unwrap();
    a.db(&[0x66, 0xea]).unwrap(); // JMP 8:WIDE
    a.dd(&[(ROM + WIDE) as u32]).unwrap();
    a.dw(&[8]).unwrap();
    place(START, &a.assemble(START).unwrap());
    let mut a = CodeAssembler::new(32).unwrap();
    a.mov(ebx, 0x1122_3344).unwrap();
    a.mov(ecx, 0x5566_7788).unwrap();
    a.inc(ecx).unwrap();
    a.dec(ecx).unwrap();
    let mut again = a.create_label();
    a.set_label(&mut again).unwrap();
    a.jmp(again).unwrap();
    place(WIDE, &a.assemble(ROM + WIDE).unwrap());
    // Operand of LGDT, and 32-bit code of 4 GiB.
    let base = (ROM + GDT + 8) as u32;
    place(GDT, &[&15u16.to_le_bytes()[..], &base.to_le_bytes()].concat());
    place(GDT + 8, &[0, 0x00cf_9b00_0000_ffff_u64].map(u64::to_le_bytes).concat());
    // JMP 0xf000:START.
    place(0xfff0, &[0xea, 0, 0x10, 0, 0xf0]);
    rom
}

/// Runs gdb with commands; what it prints, or nothing if there is none.
fn gdb(address: &str, commands: &[&str]) -> Option<String> {
    let mut gdb = Command::new("gdb-multiarch");
    gdb.args(["-nx", "-batch", "-ex", "set tcp connect-timeout 60", "-ex"]);
    gdb.arg(format!("target remote {address}"));
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

fn start(rom: &Path) -> (Program, String) {
    let mut process = Program(
        mimic(&["run", rom.to_str().unwrap(), "--gdb", ":0", "-S"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(process.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    let (_, address) = line.split_once("target remote ").expect(&line);
    let address = address.split(';').next().unwrap().trim().to_owned();
    (process, address)
}

#[test]
fn gdb_follows_the_mode_it_finds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rom");
    std::fs::write(&path, rom()).unwrap();
    let (_process, address) = start(&path);
    let first = format!("hbreak *{:#x}", ROM + START);
    let commands = [
        "show architecture",
        "x/i $pc",
        &first,
        "continue",
        "x/4i $pc",
        "stepi 5",
        "print/x $eip",
        "print/x $esp",
        "print/x $ss",
        "x/1xh $ss_base + $sp",
        // Leaves the point behind, so that the guest runs on to its loop.
        "detach",
    ];
    let Some(text) = gdb(&address, &commands) else {
        eprintln!("gdb-multiarch is not installed: skipped");
        return;
    };
    for part in [
        "currently \"i8086\"",
        "0xfffffff0:\tljmp   $0xf000,$0x1000",
        "mov    $0x2000,%ax",
        "mov    %ax,%ss",
        "mov    $0x100,%sp",
        "mov    $0x5678,%bx",
        &format!("$1 = {:#x}", ROM + START + 12),
        "$2 = 0xfe",
        "$3 = 0x2000",
        "0x200fe:\t0x5678",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // In its loop of 32-bit code by now: nothing is in the way, and gdb attaches at a stop only.
    let commands = [
        "show architecture",
        "x/i $pc",
        "print/x $ebx",
        "print/x $ecx",
        "print $cpl",
        "monitor arch x86-64",
        "detach",
    ];
    let text = loop {
        let text = gdb(&address, &commands).unwrap();
        if text.contains(&format!("{:#x}:\tjmp", ROM + LOOP)) {
            break text;
        }
    };
    for part in ["currently \"i386\"", "$1 = 0x11223344", "$2 = 0x55667788", "$3 = 0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = gdb(&address, &["show architecture", "print/x $rbx", "detach"]).unwrap();
    for part in ["currently \"i386:x86-64\"", "$1 = 0x11223344"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

//! `--gdb`: gdb's remote protocol, spoken over loopback without gdb.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{BASE, Program, guest, mimic};

/// Every hart counts in t1 and in its own double word at 0x80000100.
const COUNTS: &[u32] = &[
    0x0000_0417, // 00 auipc s0, 0
    0x1004_0413, // 04 addi s0, s0, 0x100
    0x0035_1293, // 08 slli t0, a0, 3
    0x0054_0433, // 0c add s0, s0, t0
    0x0013_0313, // 10 loop: addi t1, t1, 1
    0x0064_3023, // 14 sd t1, 0(s0)
    0x0004_3383, // 18 ld t2, 0(s0)
    0xff5f_f06f, // 1c j loop
];

/// A running `mimic` and a connection to it; the process ends with the value.
struct Session {
    process: Program,
    stream: TcpStream,
    address: String,
    _folder: tempfile::TempDir,
}

/// What is waited for must have come by then, however busy the host is.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

impl Session {
    /// Starts the guest, which waits for its debugger.
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = guest(folder.path(), COUNTS);
        let fixed = ["run", path.to_str().unwrap(), "--load-addr", BASE];
        Session::run(&[&fixed, args].concat(), folder)
    }

    /// Runs the program, which waits for its debugger; `folder` holds its files.
    fn run(args: &[&str], folder: tempfile::TempDir) -> Self {
        let mut process = Program(
            mimic(&[args, &["--gdb", ":0", "-S"]].concat())
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
        let stream = connect(&address);
        Session { process, stream, address, _folder: folder }
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes()).unwrap();
        assert_eq!(self.byte(), b'+', "{packet} is acknowledged");
    }

    /// The next packet, with its runs expanded (gdb manual, "Overview" of the protocol).
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let count = self.byte() - 29;
                    let last = *text.last().unwrap();
                    text.extend((0..count).map(|_| last));
                }
                byte => text.push(byte),
            }
        }
        self.stream.read_exact(&mut [0; 2]).unwrap();
        self.stream.write_all(b"+").unwrap();
        String::from_utf8(text).unwrap()
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }

    fn ok(&mut self, packet: &str) {
        assert_eq!(self.ask(packet), "OK", "{packet}");
    }

    /// Register `number` of the selected thread.
    fn register(&mut self, number: usize) -> u64 {
        let text = self.ask(&format!("p{number:x}"));
        hex(&text)
    }

    fn pc(&mut self) -> u64 {
        self.register(32)
    }

    fn double_word(&mut self, addr: u64) -> u64 {
        let text = self.ask(&format!("m{addr:x},8"));
        hex(&text)
    }

    /// Repeats what lets the guest run for a moment until that says that the guest has come far enough.
    fn until(&mut self, mut moment: impl FnMut(&mut Session) -> bool) {
        let start = Instant::now();
        while !moment(self) {
            assert!(start.elapsed() < PATIENCE, "the guest does not get on");
        }
    }

    /// Continues and stops at a breakpoint.
    fn run_to(&mut self, addr: u64) -> String {
        self.ok(&format!("Z0,{addr:x},4"));
        let stop = self.ask("vCont;c");
        self.ok(&format!("z0,{addr:x},4"));
        stop
    }
}

/// Little-endian hexadecimal bytes.
fn hex(text: &str) -> u64 {
    assert!(matches!(text.len(), 8 | 16), "{text}");
    u64::from_str_radix(text, 16).unwrap().swap_bytes() >> (64 - 4 * text.len())
}

const LOOP: u64 = 0x8000_0010;
const COUNT: u64 = 0x8000_0100;
const T1: usize = 6;
const S0: usize = 8;

#[test]
fn registers_and_memory_are_read_and_written() {
    for mode in [&[][..], &["--deterministic"]] {
        let mut gdb = Session::start(mode);
        assert!(gdb.ask("qSupported:swbreak+;xmlRegisters=riscv").contains("qXfer:features:read+"));
        assert!(gdb.ask("?").starts_with("T05"));
        let xml = gdb.ask("qXfer:features:read:target.xml:0,1000");
        for part in
            ["riscv:rv64", "org.gnu.gdb.riscv.cpu", "name=\"pc\" bitsize=\"64\" regnum=\"32\""]
        {
            assert!(xml.contains(part), "{xml}");
        }
        let stop = gdb.run_to(LOOP);
        assert!(stop.starts_with("T05") && stop.contains("swbreak"), "{stop}");
        assert_eq!((gdb.pc(), gdb.register(S0)), (LOOP, COUNT));
        let all = gdb.ask("g");
        assert_eq!(all.len(), 33 * 16);
        assert_eq!(hex(&all[S0 * 16..][..16]), COUNT);
        assert_eq!(hex(&all[32 * 16..]), LOOP);
        // t1 = 0x1122 by one packet, then mscratch (CSR 0x340 is gdb's 65 + 0x340) and the mode (4161).
        gdb.ok("P6=2211000000000000");
        assert_eq!(gdb.register(T1), 0x1122);
        gdb.ok(&format!("P{:x}=efbeadde00000000", 65 + 0x340));
        assert_eq!(gdb.register(65 + 0x340), 0xdead_beef);
        assert_eq!(gdb.register(4161), 3);
        // mhartid is read-only.
        assert!(gdb.ask(&format!("P{:x}=0100000000000000", 65 + 0xf14)).starts_with('E'));
        // The guest works with what was written.
        assert_eq!(gdb.run_to(LOOP + 8)[..3], *"T05");
        assert_eq!((gdb.register(T1), gdb.double_word(COUNT)), (0x1123, 0x1123));
        // Code is memory: addi t1, t1, 2 from now on.
        gdb.ok(&format!("M{LOOP:x},4:13032300"));
        assert_eq!(gdb.run_to(LOOP + 4)[..3], *"T05");
        assert_eq!(gdb.register(T1), 0x1125);
        assert!(gdb.ask("m1000000000000,8").starts_with('E'), "nothing is there");
        // The serial port's line status: not by a virtual address, but by a physical one.
        assert!(gdb.ask("m10000005,1").starts_with('E'));
        gdb.send("qRcmd,70687973206f6e"); // phys on
        while gdb.receive() != "OK" {}
        assert_eq!(gdb.ask("m10000005,1"), "60", "transmitter empty and idle");
        assert_eq!(gdb.double_word(COUNT), 0x1123);
    }
}

#[test]
fn steps_and_watchpoints_stop_after_the_instruction() {
    for mode in [&[][..], &["--deterministic"]] {
        let mut gdb = Session::start(mode);
        gdb.run_to(LOOP);
        for pc in [LOOP + 4, LOOP + 8, LOOP + 12, LOOP, LOOP + 4] {
            assert_eq!(gdb.ask("vCont;s:1")[..3], *"T05");
            assert_eq!(gdb.pc(), pc);
        }
        assert_eq!(gdb.register(T1), 2);
        // Write, read and access watchpoints, on a part of the double word.
        for (kind, word, pcs) in [
            (2, "watch", [LOOP + 8, LOOP + 8]),
            (3, "rwatch", [LOOP + 12, LOOP + 12]),
            (4, "awatch", [LOOP + 8, LOOP + 12]),
        ] {
            gdb.ok(&format!("Z{kind},{:x},4", COUNT + 4));
            for pc in pcs {
                let stop = gdb.ask("vCont;c");
                assert!(stop.contains(&format!(";{word}:{:x};", COUNT + 4)), "{stop}");
                assert_eq!(gdb.pc(), pc, "{word}");
            }
            gdb.ok(&format!("z{kind},{:x},4", COUNT + 4));
        }
        assert!(gdb.ask(&format!("z2,{COUNT:x},4")).starts_with('E'), "there is none");
    }
}

#[test]
fn two_harts_are_two_threads() {
    for mode in [&["--cpus", "2"][..], &["--cpus", "2", "--deterministic"]] {
        let mut gdb = Session::start(mode);
        assert_eq!(gdb.ask("qfThreadInfo"), "m01,02");
        for (hart, thread) in [(0, "1"), (1, "2")] {
            gdb.ok(&format!("Hg{thread}"));
            assert_eq!(gdb.register(65 + 0xf14), hart, "mhartid");
        }
        // Only the second runs; the first stands where it stood.
        gdb.ok("Hg1");
        let first = gdb.pc();
        gdb.ok(&format!("Z0,{:x},4", LOOP + 4));
        let stop = gdb.ask("vCont;c:2");
        assert!(stop.contains("thread:02"), "{stop}");
        gdb.ok("Hg1");
        assert_eq!(gdb.pc(), first);
        gdb.ok("Hg2");
        assert_eq!((gdb.pc(), gdb.register(S0)), (LOOP + 4, COUNT + 8));
        // Then the first catches up, while the second steps on.
        let stop = gdb.ask("vCont;c:1");
        assert!(stop.contains("thread:01"), "{stop}");
        gdb.ok(&format!("z0,{:x},4", LOOP + 4));
        let stop = gdb.ask("vCont;s:2;c");
        assert!(stop.contains("thread:02"), "{stop}");
        gdb.ok("Hg2");
        assert_eq!(gdb.pc(), LOOP + 8);
        // Both run until gdb interrupts them.
        gdb.until(|gdb| {
            gdb.send("vCont;c");
            std::thread::sleep(Duration::from_millis(10));
            gdb.stream.write_all(&[3]).unwrap();
            assert_eq!(gdb.receive()[..3], *"T02");
            gdb.double_word(COUNT) > 1000 && gdb.double_word(COUNT + 8) > 1000
        });
    }
}

#[test]
fn the_guest_goes_on_when_gdb_leaves_and_ends_when_gdb_kills_it() {
    let mut gdb = Session::start(&["--cpus", "2"]);
    gdb.run_to(LOOP);
    gdb.ok(&format!("Z0,{LOOP:x},4"));
    gdb.ok(&format!("Z2,{COUNT:x},8"));
    // By the next connection the guest has counted on, breakpoints or not.
    gdb.until(|gdb| {
        gdb.ok("D");
        std::thread::sleep(Duration::from_millis(10));
        gdb.stream = connect(&gdb.address);
        gdb.double_word(COUNT) > 1000
    });
    let count = gdb.double_word(COUNT);
    // A connection that breaks is one that leaves.
    gdb.stream = connect(&gdb.address);
    assert!(gdb.double_word(COUNT) >= count);
    gdb.until(|gdb| {
        gdb.send("vCont;c");
        std::thread::sleep(Duration::from_millis(10));
        gdb.stream = connect(&gdb.address);
        gdb.double_word(COUNT) > count
    });
    gdb.stream.write_all(b"$k#6b").unwrap();
    assert!(gdb.process.wait().unwrap().code().is_some(), "it ends by itself");
}

/// A multiboot kernel: counts in ECX and at 0x200000, with something in other registers. Its loop is at the addresses
/// returned: INC ECX; MOV [count], ECX; MOV EDX, [count]; JMP.
fn x86_kernel() -> (Vec<u8>, [u64; 4]) {
    use iced_x86::code_asm::*;
    let at = 0x10_0020;
    let mut a = CodeAssembler::new(32).unwrap();
    a.mov(ebx, 0x1122_3344).unwrap();
    a.mov(eax, 0x600).unwrap();
    a.mov(cr4, eax).unwrap();
    a.fninit().unwrap();
    a.fld1().unwrap();
    a.movd(xmm3, ebx).unwrap();
    a.xor(ecx, ecx).unwrap();
    let start = at + a.assemble(at).unwrap().len() as u64;
    let mut again = a.create_label();
    a.set_label(&mut again).unwrap();
    a.inc(ecx).unwrap();
    a.mov(dword_ptr(X86_COUNT), ecx).unwrap();
    a.mov(edx, dword_ptr(X86_COUNT)).unwrap();
    a.jmp(again).unwrap();
    let (magic, flags, base) = (0x1bad_b002u32, 0x1_0000u32, 0x10_0000u32);
    let sum = magic.wrapping_add(flags).wrapping_neg();
    let mut file: Vec<u8> = [magic, flags, sum, base, base, 0, 0, base + 32]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    file.extend(a.assemble(at).unwrap());
    // One, six and six bytes.
    (file, [start, start + 1, start + 7, start + 13])
}

const X86_COUNT: u64 = 0x20_0000;

/// Registers of gdb's numbers, of which an i386 has fewer: ebx, ecx, eip, eflags, cs, st0, xmm3, and cr4 among the system
/// registers.
#[test]
fn x86_guests_are_debugged() {
    let [ebx, ecx, eip, eflags, cs, st0, xmm3] = [3usize, 1, 8, 9, 10, 16, 35];
    let system = 49;
    let (kernel, [first, second, third, fourth]) = x86_kernel();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    std::fs::write(&path, kernel).unwrap();
    let mut gdb = Session::run(&["run", path.to_str().unwrap()], folder);
    let xml = gdb.ask("qXfer:features:read:target.xml:0,3000");
    for part in [
        "<architecture>i386</architecture>",
        "org.gnu.gdb.i386.core",
        "name=\"eip\" bitsize=\"32\" regnum=\"8\"",
        "org.gnu.gdb.i386.sse",
        "org.gnu.gdb.i386.avx",
        "name=\"fs_base\" bitsize=\"64\" regnum=\"49\"",
    ] {
        assert!(xml.contains(part), "{part} in {xml}");
    }
    assert_eq!(gdb.register(eip), 0x10_0020, "the kernel's entry");
    let stop = gdb.run_to(first);
    assert!(stop.starts_with("T05") && stop.contains("swbreak"), "{stop}");
    assert_eq!((gdb.register(eip), gdb.register(ebx)), (first, 0x1122_3344));
    assert_eq!(gdb.ask(&format!("p{xmm3:x}")), "44332211000000000000000000000000");
    assert_eq!(gdb.ask(&format!("p{st0:x}")), "0000000000000080ff3f", "1.0 in 80 bits");
    assert_eq!(&gdb.ask(&format!("p{cs:x}"))[4..], "0000");
    assert_eq!(gdb.register(system + 6), 0x600, "CR4");
    // XOR has left ZF and PF; the rest of the core follows EIP.
    assert_eq!(gdb.ask(&format!("p{eflags:x}")), "46000000");
    let all = gdb.ask("g");
    assert_eq!((all.len(), hex(&all[8 * eip..][..8])), (2 * 16 * 4, first));
    gdb.ok(&format!("P{ecx:x}=11000000"));
    gdb.ok(&format!("P{xmm3:x}=0123456789abcdef0123456789abcdef"));
    assert_eq!(gdb.ask(&format!("p{xmm3:x}")), "0123456789abcdef0123456789abcdef");
    assert!(gdb.ask(&format!("P{cs:x}=08000000")).starts_with('E'), "it goes with a descriptor");
    for pc in [second, third, fourth, first] {
        assert_eq!(gdb.ask("vCont;s:1")[..3], *"T05");
        assert_eq!(gdb.register(eip), pc);
    }
    assert_eq!((gdb.register(ecx), gdb.double_word(X86_COUNT)), (0x12, 0x12));
    for (kind, word, pc) in [(2, "watch", third), (3, "rwatch", fourth), (4, "awatch", third)] {
        gdb.ok(&format!("Z{kind},{X86_COUNT:x},4"));
        let stop = gdb.ask("vCont;c");
        assert!(stop.contains(&format!(";{word}:{X86_COUNT:x};")), "{stop}");
        assert_eq!(gdb.register(eip), pc, "{word}");
        gdb.ok(&format!("z{kind},{X86_COUNT:x},4"));
    }
    // Elsewhere: over the loop's second instruction; and with other code, INC ECX twice.
    gdb.ok(&format!("P{eip:x}={}", &hex_of(first)[..8]));
    gdb.ok(&format!("M{second:x},6:419090909090"));
    let count = gdb.register(ecx);
    assert_eq!(gdb.run_to(fourth)[..3], *"T05");
    assert_eq!(gdb.register(ecx), count + 2);
}

/// The bytes of a register's value.
fn hex_of(value: u64) -> String {
    format!("{:016x}", value.swap_bytes())
}

#[test]
fn garbage_does_no_harm() {
    let mut gdb = Session::start(&[]);
    // A small generator of bytes (xorshift), between the frames of packets.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..200 {
        let mut body = String::from(["vCont;", "m", "P", "Z0,", "qRcmd,", "H", "", "X"][round % 8]);
        for _ in 0..round % 40 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            body.push(char::from(b"0123456789abcdef,:;=-szcT*}~"[state as usize % 28]));
        }
        let sum = body.bytes().fold(0u8, u8::wrapping_add);
        let mut stream = connect(&gdb.address);
        // The server may hang up at once.
        let _ = stream.write_all(format!("${body}#{sum:02x}\u{3}#$$").as_bytes());
        // The one before has left by this.
        gdb.stream = stream;
    }
    gdb.stream = connect(&gdb.address);
    assert!(gdb.ask("?").starts_with("T05"));
    assert!(gdb.process.try_wait().unwrap().is_none(), "it still runs");
}

#[test]
fn addresses_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = guest(folder.path(), COUNTS);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (address, text) in
        [("0.0.0.0:0", "--gdb-remote"), (taken.as_str(), "in use"), ("nowhere", "HOST:PORT")]
    {
        let output = mimic(&["run", path.to_str().unwrap(), "--load-addr", BASE, "--gdb", address])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(126), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    }
}

//! Writes every ROM (or those whose names contain a given text) as an ELF file into a folder:
//! `cargo run -p mimic-test-roms --example emit -- FOLDER [TEXT [MILLISECONDS]]`. The time is for stress
//! ROMs. The guests for KVM are raw code, with the options that `mimic run` takes for it.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("usage: emit FOLDER [TEXT [MS]]")?);
    let text = args.next().unwrap_or_default();
    let milliseconds = args.next().map(|ms| ms.parse::<u64>()).transpose()?;
    for rom in mimic_test_roms::roms().iter().filter(|r| r.name.contains(&text)) {
        let path = folder.join(format!("{}.elf", rom.name));
        fs::create_dir_all(path.parent().ok_or("a ROM's path has a parent")?)?;
        let elf = milliseconds.map_or_else(|| rom.build(), |ms| rom.build_for(ms));
        fs::write(&path, elf)?;
        let cases = rom.cases();
        let listing: String =
            cases.iter().map(|c| format!("{} {} {}\n", c.first, c.count, c.name)).collect();
        fs::write(path.with_extension("cases"), listing)?;
        let count: u32 = cases.iter().map(|c| c.count).sum();
        println!("{:<24} {count:>6} cases  {}", rom.name, rom.title);
    }
    for guest in mimic_test_roms::x86::kvm::GUESTS.iter().filter(|g| g.name.contains(&text)) {
        let path = folder.join(format!("x86/kvm-{}.bin", guest.name));
        fs::create_dir_all(path.parent().ok_or("a guest's path has a parent")?)?;
        fs::write(&path, guest.build())?;
        let (bits, address) = (guest.bits, guest.address);
        println!(
            "x86/kvm-{:<16} --bits {bits} --load-addr {address:#x}  {}",
            guest.name, guest.title
        );
    }
    Ok(())
}

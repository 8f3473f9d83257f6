//! gdb's `monitor` command: what the protocol has no packet for.

use std::fmt::Write;

use super::guest::Guest;
use super::target::Debuggee;
use super::x86::Shape;
use crate::report;
use crate::terminal::session::place;

const HELP: &str = "\
help              this list
info              counters, and where each hart is
arch NAME         what a debugger of an x86 processor is told of when it attaches anew: i8086, i386, x86-64,
                  or auto, which fits the mode
phys [on|off]     take gdb's addresses as guest physical ones; reaches devices too, whose reads may have
                  side effects";

/// Performs a command; what to print.
pub(super) fn obey<G: Guest>(debuggee: &mut Debuggee<G>, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        [] | ["help"] => format!("{HELP}\n"),
        ["info"] => info(debuggee),
        ["arch", "auto"] => {
            debuggee.shape = None;
            "told by the mode when gdb attaches anew\n".into()
        }
        ["arch", name] if let Some(shape) = Shape::named(name) => {
            debuggee.shape = Some(shape);
            format!("{name} when gdb attaches anew\n")
        }
        ["phys"] => phys(debuggee),
        ["phys", "on"] => {
            debuggee.physical = true;
            phys(debuggee)
        }
        ["phys", "off"] => {
            debuggee.physical = false;
            phys(debuggee)
        }
        _ => format!("`{command}` is unknown; `monitor help` lists the commands\n"),
    }
}

fn phys<G: Guest>(debuggee: &Debuggee<G>) -> String {
    let kind = if debuggee.physical { "guest physical" } else { "virtual" };
    format!("addresses are {kind} ones\n")
}

fn info<G: Guest>(debuggee: &Debuggee<G>) -> String {
    let machine = &debuggee.machine;
    let mut text = format!("{}\n", report::summary(&machine.stats()));
    for (number, hart) in machine.harts().into_iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "hart {number}: {}", place(machine, &hart));
    }
    text
}

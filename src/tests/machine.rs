//! Machines made in the test's own process, and what their guests print.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mimic::loader::LoadedImage;
use mimic::machine::spec::{
    BoardKind, ConsoleKind, CpuSpec, EngineKind, Firmware, Limits, MachineSpec, Report, VirtioBus,
};
use mimic::machine::{ConsoleIo, Machine};
use mimic_devices::serial::SerialOutput;

/// A guest that hangs ends here, not the test run.
pub(crate) const PATIENCE: Limits = Limits { insns: None, time: Some(Duration::from_secs(120)) };

/// What a guest prints.
#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<Mutex<Vec<u8>>>);

impl SerialOutput for Capture {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

impl Capture {
    /// So far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// A console that prints here, and on which nobody types.
    pub(crate) fn io(&self) -> ConsoleIo {
        ConsoleIo { output: Box::new(self.clone()), input: None }
    }
}

/// The plainest machine for an image: its ISA's board with one processor, 64 MiB and nothing attached, interpreted.
pub(crate) fn plain(image: LoadedImage) -> MachineSpec {
    let board = BoardKind::for_isa(image.isa);
    MachineSpec {
        board,
        cpu: CpuSpec::default_for(image.isa),
        cpus: 1,
        memory: 64 << 20,
        deterministic: false,
        engine: EngineKind::Interp.into(),
        firmware: Firmware::Auto,
        virtio: VirtioBus::default_for(board, image.kind),
        image,
        initrd: None,
        cmdline: String::new(),
        console: ConsoleKind::Uart,
        limits: PATIENCE,
        disks: Vec::new(),
        flash: None,
        signature: None,
        pass_exit: None,
    }
}

/// Runs a guest; how it ended, and what it printed.
pub(crate) fn run(spec: MachineSpec) -> (Report, String) {
    let console = Capture::default();
    let mut machine = Machine::new(spec, console.io()).unwrap();
    machine.hash_at_end();
    let report = machine.run();
    (report, console.text())
}

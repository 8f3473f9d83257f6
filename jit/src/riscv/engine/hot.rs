//! What is executed much is translated once more, as regions.
//!
//! From time to time the clock finds a place executing. A place that it finds often is traced: the interpreter performs
//! what comes next, and says what that was. After some traces of it, spread over time, the place gets its region.

use std::sync::Arc;
use std::time::Instant;

use mimic_cpu::bus::PAGE_MASK;
use mimic_cpu::riscv::interp::host::CodePage;

use super::worker::{self, Done, HALVES, Job, Results};
use super::{Jit, LONGEST, Tamper, Translation, room};
use crate::cache::Place;
use crate::ir::Insn;
use crate::ir::region::Region;
use crate::riscv::lift::ModeKey;
use crate::riscv::region::{self, Shape, Trace};
use crate::riscv::sampler::Sampler;
use crate::x64;

/// Traces of a place before its region is made; the place's samples before the first are not traced.
const TRACES: u8 = 3;
/// Most places that are traced at a time.
const MAX_TRACED: usize = 16;
/// Most code of a region.
const MAX_REGION_BYTES: usize = 32 << 10;

/// A place that is traced.
#[derive(Debug)]
struct Traced {
    place: Place,
    traces: u8,
    trace: Trace,
}

/// What is known of what is executed much.
#[derive(Debug, Default)]
pub(super) struct Hot {
    pub(super) sampler: Sampler,
    traced: Vec<Traced>,
    /// The last of them is being traced now.
    is_tracing: bool,
    /// Regions that were made, by their heads.
    made: Vec<(Place, Shape)>,
    /// Regions that were prepared beside the guest.
    results: Arc<Results>,
}

fn array<T>(items: impl Iterator<Item = T>) -> Box<[T; HALVES]> {
    let items: Box<[T]> = items.collect();
    items.try_into().unwrap_or_else(|_| unreachable!("one for each half"))
}

impl Hot {
    /// For places that are found so often; 0 is sooner still.
    pub(super) fn new(samples: u8) -> Self {
        Hot { sampler: Sampler::new(samples == 0), ..Hot::default() }
    }

    /// The page with this number has gone.
    pub(super) fn forget(&mut self, page: u32) {
        self.made.retain(|(place, _)| place.page != page);
    }
}

impl Jit {
    /// Looks at what is executed next, if it is time to. Whether that was executed instead of only looked at, or cannot
    /// be said.
    #[inline]
    pub(super) fn observe(&mut self, limit: u64) -> bool {
        if !self.options.regions {
            return false;
        }
        if self.hot.is_tracing {
            self.trace(limit);
            return true;
        }
        self.hot.sampler.is_due(self.interp.retired()) && !self.take_sample()
    }

    /// Performs a block and records it.
    #[cold]
    fn trace(&mut self, limit: u64) {
        let (pc, before) = (self.interp.frame().next_pc, self.interp.retired());
        self.interpret(limit);
        let insns = self.interp.retired() - before;
        let traced = self.hot.traced.last_mut();
        self.hot.is_tracing = traced.is_some_and(|traced| !traced.trace.add(pc, insns));
    }

    /// The code at the program counter was found executing. `false` if it cannot be said what code that is.
    #[cold]
    fn take_sample(&mut self) -> bool {
        let pc = self.interp.frame().next_pc;
        let Some(page) = self.interp.code_page() else { return false };
        let (mode, offset) = (self.mode_key(), (pc & PAGE_MASK) as u16);
        let place = Place { page: page.index, version: page.version, mode: mode.index(), offset };
        self.counters.samples += 1;
        self.take_prepared(page);
        if !self.cache.is_code(place) {
            return true;
        }
        let Some(times) = self.cache.sample(place) else { return true };
        let wanted = self.options.samples;
        if times < wanted.saturating_sub(TRACES) {
            return true;
        }
        let known = self.hot.traced.iter().position(|traced| traced.place == place);
        let mut traced = match known {
            Some(at) => self.hot.traced.remove(at),
            None => Traced { place, traces: 0, trace: Trace::default() },
        };
        if traced.traces < TRACES.min(wanted.max(1)) {
            traced.traces += 1;
            traced.trace.begin(pc);
            if self.hot.traced.len() == MAX_TRACED {
                self.hot.traced.remove(0);
            }
            self.hot.traced.push(traced);
            self.hot.is_tracing = true;
            return true;
        }
        self.cache.settle(place);
        self.interp.watch_code();
        if !self.options.background || !self.submit(place, mode, &mut traced.trace) {
            self.make_region(page, place, mode, &traced.trace);
        }
        true
    }

    /// Has a region prepared beside the guest. `false` if nobody does that.
    fn submit(&mut self, place: Place, mode: ModeKey, trace: &mut Trace) -> bool {
        let halves = 0..HALVES as u16;
        let job = Job {
            place,
            mode,
            passes: self.options.passes,
            trace: std::mem::take(trace),
            page: array(halves.clone().map(|half| self.interp.peek_code_half(u64::from(2 * half)))),
            known: array(
                halves.map(|half| self.cache.is_code(Place { offset: 2 * half, ..place })),
            ),
            results: Arc::clone(&self.hot.results),
        };
        match worker::submit(job) {
            Ok(()) => true,
            Err(job) => {
                *trace = job.trace;
                false
            }
        }
    }

    /// Takes what was prepared of a page, which is current, and still is true of it.
    fn take_prepared(&mut self, page: CodePage) {
        for done in self.hot.results.take(page.index, page.version) {
            self.counters.background += done.time;
            let Done { place, mode, shape, mut region, .. } = done;
            self.interp.watch_code();
            let interp = &self.interp;
            let same = |insn: &Insn| {
                let at = insn.at.offset();
                let low = u32::from(interp.code_half(at));
                let high = if insn.at.bytes() == 4 { interp.code_half(at + 2) } else { 0 };
                insn.word == low | u32::from(high) << 16
            };
            if region.parts.iter().flat_map(|part| &part.block.insns).all(same) {
                self.tamper(&mut region);
                self.install(page, (place, mode), shape, &region);
            }
        }
    }

    fn tamper(&self, region: &mut Region) {
        if let Some(Tamper(tamper)) = self.options.tamper {
            region.parts.iter_mut().for_each(|part| tamper(&mut part.block));
        }
    }

    fn install(
        &mut self,
        page: CodePage,
        (place, mode): (Place, ModeKey),
        shape: Shape,
        region: &Region,
    ) {
        // What crosses into the next page begins no line.
        if !shape.is_entered_at(place.offset.into()) {
            return;
        }
        let started = Instant::now();
        if self.enter_region(page, place, mode, region).is_some() {
            self.hot.made.push((place, shape));
        }
        self.counters.time += started.elapsed().min(4 * LONGEST);
    }

    #[cold]
    fn make_region(&mut self, page: CodePage, place: Place, mode: ModeKey, trace: &Trace) {
        let started = Instant::now();
        let (interp, cache) = (&self.interp, &self.cache);
        let fetch = |at: u64| interp.code_half(at);
        let is_known = |at: u64| cache.is_code(Place { offset: at as u16, ..place });
        let head = u64::from(place.offset);
        let shape = region::choose(&mut self.lifter, fetch, head, mode, trace, is_known);
        let region = self.lift_region(&shape, mode);
        self.counters.time += started.elapsed().min(4 * LONGEST);
        if let Some(region) = region {
            self.install(page, (place, mode), shape, &region);
        }
    }

    fn lift_region(&mut self, shape: &Shape, mode: ModeKey) -> Option<Region> {
        let interp = &self.interp;
        let mut region = shape.lift(&mut self.lifter, |at: u64| interp.code_half(at), mode)?;
        self.tamper(&mut region);
        Some(region)
    }

    /// The region that is entered at `place`.
    pub(super) fn region_at(&mut self, place: Place, mode: ModeKey) -> Option<Region> {
        let shape = self.hot.made.iter().rev().find(|(made, shape)| {
            *made == Place { offset: made.offset, ..place }
                && shape.is_entered_at(place.offset.into())
        });
        let shape = shape?.1.clone();
        self.lift_region(&shape, mode)
    }

    /// A region for people to read.
    pub(super) fn region_translation(
        &mut self,
        page: CodePage,
        mode: ModeKey,
        region: &Region,
        room: x64::Place,
    ) -> Option<Translation> {
        let thunks = &self.thunks[usize::from(mode.fp)];
        let emitted = self.emitter.emit_region(region, room, thunks).ok()?;
        let blocks = || region.parts.iter().map(|part| &part.block);
        let insns = blocks().flat_map(|block| &block.insns);
        Some(Translation {
            page: page.gpa,
            offset: region.parts.first()?.block.start,
            insns: insns.map(|insn| (insn.at, insn.word)).collect(),
            ir: blocks().map(ToString::to_string).collect(),
            code: emitted.code.to_vec(),
            at: room.at,
            map: emitted.map.to_vec(),
            out_of_line: emitted.out_of_line,
        })
    }

    /// Makes host code for a region and lets what leads to its entries lead there. `None` if it is not worth it.
    fn enter_region(
        &mut self,
        page: CodePage,
        place: Place,
        mode: ModeKey,
        region: &Region,
    ) -> Option<()> {
        let is_current_mode = place.mode == self.mode_key().index();
        let thunks = &self.thunks[usize::from(mode.fp)];
        let mut emitted = self.emitter.emit_region(region, room(&self.cache), thunks).ok()?;
        if !emitted.has_own_homes || emitted.code.len() > MAX_REGION_BYTES {
            return None;
        }
        if self.cache.make_room(emitted.code.len()) {
            self.pending = None;
            self.jumps.drop_all();
            // Once more, for its new place.
            emitted = self.emitter.emit_region(region, room(&self.cache), thunks).ok()?;
        }
        let entries = emitted.entries.iter().map(|entry| (entry.offset as u16, entry.at as usize));
        let links =
            emitted.links.iter().map(|link| (link.rel32_offset as usize, link.target as u16));
        let interp = &self.interp;
        let payloads = emitted.performs.iter().filter_map(|&index| {
            let insn = region.insn(index)?;
            Some(Some(interp.prepare(insn.word, insn.at.offset())))
        });
        let code = self.cache.insert(place, emitted.code, entries, links, payloads);
        let pc = self.interp.frame().next_pc & !PAGE_MASK | u64::from(place.offset);
        if is_current_mode && self.jumps.lookup(pc).is_some() {
            self.jumps.insert(pc, code);
        }
        for part in &region.parts {
            self.cache.settle(Place { offset: part.block.start as u16, ..place });
        }
        if let Some(perf) = self.perf {
            let physical = page.gpa + u64::from(place.offset);
            let name = format!("guest region pc {pc:#x} physical {physical:#x}");
            perf.add(code, emitted.code.len(), &name);
        }
        self.counters.regions += 1;
        self.counters.region_insns += region.len() as u64;
        Some(())
    }
}

//! What users feel, each figure beside its floor or a peer in the same run.
//!
//! `benches/compare.sh` builds everything and runs this. The subjects are whole programs over stdio, so that two builds can
//! be compared: `MAHAVISHNU_BEFORE` names a second mahavishnu, whose values are shown as "before". Only the router is
//! measured in-process. Figures are printed as they are measured and kept in `target/bench.jsonl`; with
//! `MAHAVISHNU_BENCH_MACHINE` (a line that describes the machine) `benches/RESULTS.md` and the README's table are
//! written from them.

mod aggregation;
mod calls;
mod client;
mod figure;
mod footprint;
mod linux;
mod peers;
mod record;
mod report;
mod routing;
mod workflows;
mod worktree;

use figure::Bench;

fn main() {
    figure::without_cargos_libraries();
    let bench = Bench::from_args();
    calls::measure(&bench);
    footprint::measure(&bench);
    workflows::measure(&bench);
    worktree::measure(&bench);
    routing::measure(&bench);
    aggregation::measure(&bench);
    report::write(&bench);
}

//! How fast the core decides, assigns, claims and prices: the goals of `docs/performance.md`.
//!
//! `cargo bench -p gh-core --bench speed` measures. `cargo test -p gh-core --bench speed` runs each bench once, with
//! small fleets, to show that it still runs; nothing is timed there.

mod assigning;
mod claiming;
mod deciding;
mod pricing;
mod world;

criterion::criterion_group!(benches, deciding::benches, assigning::benches, claiming::benches, pricing::benches);
criterion::criterion_main!(benches);

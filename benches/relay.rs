//! What a turn costs beside its system calls, and what a member costs in memory: rooms of up to a
//! million members whose streams are sinks. Run with `cargo bench --bench relay`.

mod common;

use std::fs;
use std::time::Instant;

use chatloop::relay::{Limits, Ready};
use chatloop::wire::Dialect;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use common::{Sink, room_of, turn};

/// The resident memory of this process, in bytes, where the system shows it.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

fn fan_out(criterion: &mut Criterion) {
    let mut scratch = vec![0; Limits::default().read_budget];
    let one = &[Dialect::Chat10][..];
    let two = &[Dialect::Chat10, Dialect::Chat64][..];
    // All rooms are built, and none is given back, before anything else takes memory.
    let rooms: Vec<_> = [(100, one), (10_000, one), (10_000, two), (1_000_000, one)]
        .into_iter()
        .map(|(members, dialects)| {
            let before = resident();
            let (relay, ids) = room_of::<Sink>(members, dialects, &mut scratch);
            let name = match dialects.len() {
                1 => format!("a room of {members}"),
                dialects => format!("a room of {members} of {dialects} dialects"),
            };
            // Of a smaller room, what the allocator keeps for later would be most of it.
            if let (1_000_000.., Some(before), Some(after)) = (members, before, resident()) {
                let own = size_of_val(&*ids);
                let each = after.saturating_sub(before + own) / members;
                println!("{name}: {each} bytes of resident memory a member");
            }
            // Those that can send: a sink sends the bytes of a chat10 client.
            let senders: Vec<_> = ids.into_iter().step_by(dialects.len()).collect();
            (name, members, relay, senders)
        })
        .collect();
    let now = Instant::now();
    for (name, members, mut relay, senders) in rooms {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        group.throughput(Throughput::Elements(members as u64));
        group.bench_function("one sends", |bencher| {
            bencher.iter(|| {
                relay.note(senders[senders.len() / 2], Ready::READABLE);
                turn(&mut relay, &mut scratch, now);
            });
        });
        group.bench_function("a hundred send", |bencher| {
            bencher.iter(|| {
                for &id in &senders[..100] {
                    relay.note(id, Ready::READABLE);
                }
                turn(&mut relay, &mut scratch, now);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, fan_out);
criterion_main!(benches);

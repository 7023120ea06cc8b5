//! What it costs to take frames out of a stream: run with `cargo bench --bench decode`.

mod common;

use std::hint::black_box;

use chatloop::wire::header;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use common::{decode, frames};

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    group.bench_function("parse", |bencher| {
        bencher.iter(|| header::parse(black_box(b"1048576   ")));
    });
    group.bench_function("encode", |bencher| {
        bencher.iter(|| header::encode(black_box(1_048_576)));
    });
    group.finish();
}

fn streams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, stream, piece) in [
        (
            "whole: one frame of 64 KiB in one read",
            frames(1, 65_536),
            usize::MAX,
        ),
        (
            "many small: 885 frames of 64 bytes in one read",
            frames(885, 64),
            usize::MAX,
        ),
        (
            "cut: 885 frames of 64 bytes in reads of 1,000",
            frames(885, 64),
            1000,
        ),
        (
            "trickled: one frame of 64 KiB byte by byte",
            frames(1, 65_536),
            1,
        ),
    ] {
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |bencher| {
            let piece = piece.min(stream.len());
            bencher.iter(|| decode(black_box(&stream).chunks(piece)));
        });
    }
    group.finish();
}

criterion_group!(benches, headers, streams);
criterion_main!(benches);

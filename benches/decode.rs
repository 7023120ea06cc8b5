//! What it costs to take frames out of a stream: run with `cargo bench --bench decode`.

use std::hint::black_box;

use chatloop::wire::{Decoder, encode_frame, header};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MAX: usize = 1024 * 1024;

fn frames(count: usize, len: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..count {
        encode_frame(&vec![b'x'; len], &mut stream);
    }
    stream
}

/// Decodes a stream that comes in pieces; returns how many payload bytes there were.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut decoder = Decoder::new();
    let mut total = 0;
    for mut piece in pieces {
        while let Ok(Some(payload)) = decoder.decode(&mut piece, header::WIDTH, MAX) {
            total += black_box(payload).len();
        }
    }
    total
}

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

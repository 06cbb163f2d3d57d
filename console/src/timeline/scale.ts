// From time to places and back, with idle times drawn short.
//
// Theory of operation: warped time is time, but that each idle interval takes as long as a small share of all the rest. A
// view is a range of warped time; zooming and moving are plain arithmetic there.

import type { Interval } from "./model";

export interface Warp {
  /** Warped time of a time, from 0 at the start. */
  at: (ms: number) => number;
  /** The time at a warped time. */
  back: (warped: number) => number;
  length: number;
}

export interface View {
  from: number;
  to: number;
}

const IDLE_SHARE = 0.035;
const IDLE_SHARE_ALL = 0.3;

export function warpOf(start_ms: number, until_ms: number, idle: readonly Interval[]): Warp {
  const whole = Math.max(1, until_ms - start_ms);
  const left = idle.reduce((sum, each) => sum + each.to_ms - each.from_ms, 0);
  const rest = Math.max(1, whole - left);
  const short = rest * Math.min(IDLE_SHARE, IDLE_SHARE_ALL / Math.max(1, idle.length));
  // Knots: [time, warped time], from the start to the end.
  const knots: [number, number][] = [[start_ms, 0]];
  let warped = 0;
  let reached = start_ms;
  for (const { from_ms, to_ms } of idle) {
    warped += from_ms - reached;
    knots.push([from_ms, warped]);
    warped += Math.min(short, to_ms - from_ms);
    knots.push([to_ms, warped]);
    reached = to_ms;
  }
  warped += Math.max(start_ms + whole - reached, 0);
  knots.push([start_ms + whole, warped]);
  return {
    at: (ms) => between(knots, ms, 0, 1),
    back: (value) => between(knots, value, 1, 0),
    length: Math.max(1, warped),
  };
}

/** Linear between the knots around a value, and beyond them as before the first and after the last. */
function between(knots: readonly [number, number][], value: number, from: 0 | 1, to: 0 | 1): number {
  let low = 0;
  let high = knots.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((knots[middle]?.[from] ?? 0) <= value) low = middle;
    else high = middle;
  }
  const one = knots[low] ?? [0, 0];
  const other = knots[high] ?? one;
  const length = other[from] - one[from];
  if (length <= 0) return one[to];
  if (value < one[from] || value > other[from]) {
    const edge = value < one[from] ? one : other;
    return edge[to] + (value - edge[from]);
  }
  return one[to] + ((value - one[from]) / length) * (other[to] - one[to]);
}

/** Zooms so that a warped time stays where it is. Never further out than the whole. */
export function zoomed(view: View, factor: number, around: number, length: number): View {
  const width = Math.min(length, Math.max(length * 1e-6, (view.to - view.from) / factor, 0.05));
  const share = (around - view.from) / Math.max(1e-9, view.to - view.from);
  return placed(around - share * width, width, length);
}

/** A view of a width, kept within the whole. */
export function placed(from: number, width: number, length: number): View {
  const start = Math.min(Math.max(0, from), Math.max(0, length - width));
  return { from: start, to: start + width };
}

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 43_200_000, 86_400_000, 604_800_000];

/** Times for the axis: round, at least so far apart, none within idle times. */
export function ticksOf(
  warp: Warp,
  view: View,
  width_px: number,
  start_ms: number,
  idle: readonly Interval[],
  apart_px = 76,
): number[] {
  const perPx = (view.to - view.from) / Math.max(1, width_px);
  const wanted = perPx * apart_px;
  const longest = STEPS[STEPS.length - 1] ?? 1;
  // However long it is, there are as many steps as have room.
  const step = STEPS.find((each) => each >= wanted) ?? Math.ceil(wanted / longest) * longest;
  const ticks: number[] = [];
  let from = warp.back(view.from) - start_ms;
  const to = warp.back(view.to) - start_ms;
  let lastPlace = -Infinity;
  let next = 0;
  while (from <= to && ticks.length < 200) {
    const time = Math.ceil(from / step) * step;
    while (next < idle.length && (idle[next]?.to_ms ?? 0) - start_ms <= time) next++;
    const gap = idle[next];
    if (gap && gap.from_ms - start_ms < time) {
      // Within an idle time nothing is far enough apart to be told.
      from = gap.to_ms - start_ms;
      next++;
      continue;
    }
    if (time > to) break;
    const place = (warp.at(start_ms + time) - view.from) / perPx;
    if (place - lastPlace >= apart_px * 0.9) {
      ticks.push(start_ms + time);
      lastPlace = place;
    }
    from = time + step;
  }
  return ticks;
}

// Where rows and spans are drawn, and what lies at a place.
//
// Rules: spans of a row are in the order in which they began. Those that would lie on the same pixel are drawn once, so a
// row costs no more than it is wide.

import type { Row, TimelineModel } from "./model";
import type { View, Warp } from "./scale";

const ROW_PX = 26;
const BAR_PX = 12;
const LANE_PX = 8;
const LANES_MAX = 4;
const NEAR_PX = 5;
/** Of what holds other tasks. */
const HOLDER_PX = 4;

export interface Lane {
  y: number;
  height: number;
}

export interface Geometry {
  /** Of each row, and one more: the bottom. */
  tops: number[];
  height: number;
  /** Where the spans of an attempt lie. */
  lane: (row: number, attempt: number) => Lane;
  /** Bottoms of rows. */
  lines: (first: number, end: number) => number[];
}

export interface Sight {
  warp: Warp;
  view: View;
  width: number;
  /** What open spans reach to. */
  until: number;
}

export function geometryOf(rows: readonly Row[]): Geometry {
  const tops: number[] = [];
  let y = 0;
  for (const row of rows) {
    tops.push(y);
    y += heightOf(row);
  }
  tops.push(y);
  return {
    tops,
    height: y,
    lane: (index, attempt) => {
      const row = rows[index];
      const top = tops[index] ?? 0;
      if (!row || row.attempts === 1) {
        const height = row?.hasChildren ? HOLDER_PX : BAR_PX;
        return { y: top + (ROW_PX - height) / 2, height };
      }
      const lane = Math.min(attempt, LANES_MAX) - 1;
      return { y: top + 6 + lane * (LANE_PX + 1), height: LANE_PX - 1 };
    },
    lines: (first, end) => tops.slice(first + 1, end + 1),
  };
}

/** Attempts lie one below the other; the fourth lane has all that follow, too. */
function heightOf(row: Row): number {
  return row.attempts === 1 ? ROW_PX : 12 + Math.min(row.attempts, LANES_MAX) * (LANE_PX + 1);
}

/** The row at a height. */
export function rowAt(geometry: Geometry, y: number): number {
  let low = 0;
  let high = geometry.tops.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((geometry.tops[middle] ?? 0) <= y) low = middle;
    else high = middle;
  }
  return low;
}

function xOf(sight: Sight, ms: number): number {
  return ((sight.warp.at(ms) - sight.view.from) / (sight.view.to - sight.view.from)) * sight.width;
}

/** The nearest span to a place, if one is near; of those that cover it the latest. */
export function spanAt(
  model: TimelineModel,
  geometry: Geometry,
  sight: Sight,
  x: number,
  y: number,
): { row: number; span: number } | null {
  const row = rowAt(geometry, y);
  const spans = model.rows[row]?.spans ?? [];
  let nearest: { row: number; span: number } | null = null;
  let least = NEAR_PX;
  for (const [span, each] of spans.entries()) {
    const from = xOf(sight, each.from_ms);
    const to = Math.max(from + 2, xOf(sight, each.to_ms ?? sight.until));
    const lane = geometry.lane(row, each.attempt);
    const aside = lane.height < LANE_PX && (y < lane.y - 3 || y > lane.y + lane.height + 3) ? 2 : 0;
    const away = (x < from ? from - x : x > to ? x - to : 0) + aside;
    if (away <= least) {
      least = away;
      nearest = { row, span };
    }
  }
  return nearest;
}

/** Paths of spans by what they are: done, running, waiting, failed, cut off; and of what holds others, in thin. */
export function barsOf(
  rows: readonly Row[],
  geometry: Geometry,
  sight: Sight,
  first: number,
  end: number,
): Record<string, string> {
  const paths: Record<string, string[]> = {};
  const reached = new Map<string, number>();
  const add = (kind: string, from_ms: number, to_ms: number, lane: Lane): void => {
    const left = Math.max(-4, xOf(sight, from_ms));
    const right = Math.min(sight.width + 4, xOf(sight, to_ms));
    if (right < -2 || left > sight.width + 2) return;
    const key = `${kind} ${lane.y}`;
    const width = Math.max(1.5, right - left);
    if (left + width <= (reached.get(key) ?? -Infinity) + 0.5) return;
    reached.set(key, left + width);
    (paths[kind] ??= []).push(`M${round(left)} ${lane.y}h${round(width)}v${lane.height}h${round(-width)}z`);
  };
  for (let index = first; index < end; index++) {
    const row = rows[index];
    for (const span of row?.spans ?? []) {
      const lane = geometry.lane(index, span.attempt);
      const to_ms = span.to_ms ?? sight.until;
      const state = row?.isWaiting && span.state !== "failed" && span.state !== "cut" ? "waiting" : span.state;
      add(row?.hasChildren ? `holder is-${state}` : state, span.from_ms, to_ms, lane);
      const waits =
        span.retrying_ms === null ? span.waits : [...span.waits, { from_ms: span.retrying_ms, to_ms: sight.until }];
      for (const wait of waits) add("waiting", wait.from_ms, wait.to_ms, { y: lane.y - 3, height: lane.height + 6 });
    }
  }
  return Object.fromEntries(Object.entries(paths).map(([kind, parts]) => [kind, parts.join("")]));
}

const round = (value: number): number => Math.round(value * 10) / 10;

// Moving a picture: by the mouse, the wheel, one finger and two, and from outside.
//
// Theory of operation: where the picture is goes straight into the page, without a render; one happens when what is in
// sight leaves the range that is rendered, which is larger than the sight by its own size on each side.

import type { RefObject } from "preact";
import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Point, Size } from "./layout";

export interface Range {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

export interface PanZoom {
  svg: RefObject<SVGSVGElement | null>;
  content: RefObject<SVGGElement | null>;
  range: Range;
  zoom: (factor: number) => void;
  fit: () => void;
  /** Moves as little as shows a box. */
  reveal: (box: Point & Size) => void;
  /** Whether the pointer that has just been lifted moved the picture. */
  hasMoved: () => boolean;
}

const SCALE_MIN = 0.04;
const SCALE_MAX = 2.5;
/** Smaller than that nothing can be read: a large picture begins at its top instead. */
const SCALE_READABLE = 0.7;
const SCALE_FAR = 0.35;
const MARGIN = 24;
const DRAG_PX = 4;

interface Place {
  x: number;
  y: number;
  k: number;
}

export function usePanZoom(scene: Size, whole: unknown): PanZoom {
  const svg = useRef<SVGSVGElement>(null);
  const content = useRef<SVGGElement>(null);
  const place = useRef<Place>({ x: 0, y: 0, k: 1 });
  const size = useRef<Size>({ width: 0, height: 0 });
  const moved = useRef(false);
  const scale = useRef(scene);
  scale.current = scene;
  const [range, setRange] = useState<Range>({ left: 0, right: 2000, top: 0, bottom: 2000 });
  const rendered = useRef(range);

  const apply = useCallback((next: Place): void => {
    place.current = next;
    content.current?.setAttribute("transform", `translate(${next.x} ${next.y}) scale(${next.k})`);
    svg.current?.classList.toggle("is-far", next.k < SCALE_FAR);
    const { width, height } = size.current;
    const seen = {
      left: -next.x / next.k,
      top: -next.y / next.k,
      right: (width - next.x) / next.k,
      bottom: (height - next.y) / next.k,
    };
    const { left, right, top, bottom } = rendered.current;
    const isCovered = seen.left >= left && seen.right <= right && seen.top >= top && seen.bottom <= bottom;
    const isTooWide = right - left > 8 * (seen.right - seen.left);
    if (isCovered && !isTooWide) return;
    const [dx, dy] = [seen.right - seen.left, seen.bottom - seen.top];
    rendered.current = { left: seen.left - dx, right: seen.right + dx, top: seen.top - dy, bottom: seen.bottom + dy };
    setRange(rendered.current);
  }, []);

  const zoomAt = useCallback(
    (factor: number, at: Point): void => {
      const { x, y, k } = place.current;
      const next = Math.min(SCALE_MAX, Math.max(SCALE_MIN, k * factor));
      apply({ k: next, x: at.x - ((at.x - x) * next) / k, y: at.y - ((at.y - y) * next) / k });
    },
    [apply],
  );

  const fitTo = useCallback(
    (least: number): void => {
      const { width, height } = size.current;
      if (!width || !height) return;
      const whole = Math.min((width - 2 * MARGIN) / scale.current.width, (height - 2 * MARGIN) / scale.current.height, 1);
      const k = Math.max(whole, least, SCALE_MIN);
      const y = whole >= k ? Math.max(MARGIN, (height - scale.current.height * k) / 2) : MARGIN;
      apply({ k, x: (width - scale.current.width * k) / 2, y: Math.min(y, 3 * MARGIN) });
    },
    [apply],
  );

  // A picture of something else begins anew; one that is folded stays where it is.
  const shown = useRef<unknown>(null);
  useLayoutEffect(() => {
    const element = svg.current;
    if (!element) return undefined;
    const measure = (): void => {
      const { width, height } = element.getBoundingClientRect();
      size.current = { width, height };
      if (shown.current !== whole && width > 0) {
        shown.current = whole;
        fitTo(SCALE_READABLE);
      } else apply(place.current);
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [whole, apply, fitTo]);

  useLayoutEffect(() => {
    const element = svg.current;
    return element ? listen(element, place, apply, zoomAt, moved) : undefined;
  }, [apply, zoomAt]);

  const hasMoved = useCallback((): boolean => moved.current, []);
  const reveal = useCallback(
    (box: Point & Size): void => {
      const { x, y, k } = place.current;
      const { width, height } = size.current;
      if (!width) return;
      const along = (start: number, length: number, offset: number, sight: number): number => {
        const low = start * k + offset;
        const high = low + Math.min(length * k, sight - 2 * MARGIN);
        if (low < MARGIN) return offset + MARGIN - low;
        return high > sight - MARGIN ? offset - (high - sight + MARGIN) : offset;
      };
      apply({ k, x: along(box.x, box.width, x, width), y: along(box.y, box.height, y, height) });
    },
    [apply],
  );
  const zoom = useCallback(
    (factor: number): void => zoomAt(factor, { x: size.current.width / 2, y: size.current.height / 2 }),
    [zoomAt],
  );
  const fit = useCallback((): void => fitTo(0), [fitTo]);
  return { svg, content, range, zoom, fit, reveal, hasMoved };
}

/** Pointers and the wheel; gives what ends it. */
function listen(
  element: SVGSVGElement,
  place: { current: Place },
  apply: (next: Place) => void,
  zoomAt: (factor: number, at: Point) => void,
  moved: { current: boolean },
): () => void {
  const pointers = new Map<number, Point>();
  let travelled = 0;
  const at = (event: MouseEvent): Point => {
    const { left, top } = element.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  const down = (event: PointerEvent): void => {
    if (event.button !== 0) return;
    if (pointers.size === 0) {
      travelled = 0;
      moved.current = false;
    }
    pointers.set(event.pointerId, at(event));
  };
  const move = (event: PointerEvent): void => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const others = [...pointers.entries()].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    const other = others[0];
    pointers.set(event.pointerId, now);
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (travelled < DRAG_PX) return;
    if (!moved.current) {
      moved.current = true;
      // Only now: a click that moves nothing belongs to what it hits.
      element.setPointerCapture(event.pointerId);
      element.classList.add("is-moving");
    }
    const share = other ? 0.5 : 1;
    const { x, y, k } = place.current;
    apply({ k, x: x + (now.x - before.x) * share, y: y + (now.y - before.y) * share });
    if (other) {
      const gap = Math.hypot(before.x - other.x, before.y - other.y);
      const wider = Math.hypot(now.x - other.x, now.y - other.y);
      if (gap > 8 && wider > 8) zoomAt(wider / gap, { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    }
  };
  const up = (event: PointerEvent): void => {
    pointers.delete(event.pointerId);
    if (pointers.size === 0) element.classList.remove("is-moving");
  };
  const wheel = (event: WheelEvent): void => {
    event.preventDefault();
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    if (event.ctrlKey || event.metaKey) {
      zoomAt(Math.exp(-event.deltaY * unit * 0.004), at(event));
      return;
    }
    const { x, y, k } = place.current;
    const [dx, dy] = event.shiftKey && !event.deltaX ? [event.deltaY, 0] : [event.deltaX, event.deltaY];
    apply({ k, x: x - dx * unit, y: y - dy * unit });
  };
  element.addEventListener("pointerdown", down);
  element.addEventListener("pointermove", move);
  element.addEventListener("pointerup", up);
  element.addEventListener("pointercancel", up);
  element.addEventListener("wheel", wheel, { passive: false });
  return () => {
    element.removeEventListener("pointerdown", down);
    element.removeEventListener("pointermove", move);
    element.removeEventListener("pointerup", up);
    element.removeEventListener("pointercancel", up);
    element.removeEventListener("wheel", wheel);
  };
}

// A list of rows of one height, of which only those in sight are in the page.
import type { HTMLAttributes, JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

interface Properties extends Omit<HTMLAttributes<HTMLDivElement>, "children"> {
  count: number;
  row_px: number;
  render: (at: number) => JSX.Element;
  /** Keeps this row in sight whenever it, or `stir`, changes; null: leaves the place alone. */
  keep: number | null;
  stir?: unknown;
  /** Where the row that is kept comes to lie. */
  align?: "near" | "middle" | "end";
  /** Told when somebody scrolls, with whether the end is in sight. */
  onMoved?: (isAtEnd: boolean) => void;
  overscan?: number;
}

export function Virtual({
  count, row_px, render, keep, stir, align = "near", onMoved, overscan = 12, ...more
}: Properties) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top_px: 0, height_px: 600 });
  const moving = useRef(0);

  useLayoutEffect(() => {
    const shown = box.current;
    if (!shown) return;
    const look = () => setView({ top_px: shown.scrollTop, height_px: shown.clientHeight });
    look();
    const observer = new ResizeObserver(look);
    observer.observe(shown);
    return () => observer.disconnect();
  }, []);

  useEffect(() => {
    const shown = box.current;
    if (keep === null || !shown) return;
    const top_px = keep * row_px;
    const before_px = shown.scrollTop;
    const last_px = before_px + shown.clientHeight - row_px;
    let wanted_px = before_px;
    if (align === "end") wanted_px = top_px - shown.clientHeight + row_px;
    else if (top_px < before_px || top_px > last_px) {
      wanted_px =
        align === "middle" || Math.abs(top_px - before_px) > 2 * shown.clientHeight
          ? top_px - shown.clientHeight / 2
          : top_px < before_px
            ? top_px
            : top_px - shown.clientHeight + row_px;
    }
    if (Math.abs(wanted_px - before_px) < 1) return;
    moving.current = Date.now();
    shown.scrollTop = wanted_px;
  }, [keep, stir, align]);

  const first = Math.max(0, Math.floor(view.top_px / row_px) - overscan);
  const last = Math.min(count, Math.ceil((view.top_px + view.height_px) / row_px) + overscan);
  const rows: JSX.Element[] = [];
  for (let at = first; at < last; at += 1) rows.push(render(at));
  return (
    <div
      {...more}
      ref={box}
      onScroll={(event) => {
        const shown = event.currentTarget;
        setView({ top_px: shown.scrollTop, height_px: shown.clientHeight });
        // What we do ourselves is nobody's wish.
        if (Date.now() - moving.current > 150) {
          onMoved?.(shown.scrollTop + shown.clientHeight > shown.scrollHeight - row_px);
        }
      }}
    >
      <div class="virtual-space" style={{ height: `${count * row_px}px` }}>
        <div class="virtual-rows" style={{ transform: `translateY(${first * row_px}px)` }}>
          {rows}
        </div>
      </div>
    </div>
  );
}

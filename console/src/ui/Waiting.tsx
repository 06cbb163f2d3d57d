// Says that something is on its way, once that takes long enough to be noticed (app.css).
export function Waiting() {
  return <p class="waiting-text soft" role="status">On its way…</p>;
}

// A modal dialog: the browser's own, which holds the focus and gives it back; Escape and a click beside it close it.
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { closeDialog, dialog } from "../state";

export function DialogHost() {
  const content = dialog.value;
  const element = useRef<HTMLDialogElement>(null);
  // Before anything is painted: what is typed next goes into it.
  useLayoutEffect(() => {
    const shown = element.current;
    if (!shown) return;
    if (content && !shown.open) shown.showModal();
    if (!content && shown.open) shown.close();
  }, [content]);
  return (
    <dialog
      ref={element}
      aria-labelledby="dialog-title"
      onClose={() => {
        // The next one may be open already.
        if (!element.current?.open) closeDialog();
      }}
      onMouseDown={(event) => {
        if (event.target === element.current) closeDialog();
      }}
    >
      {content?.()}
    </dialog>
  );
}

export function DialogFrame({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <div class="dialog">
      <header>
        <h2 id="dialog-title">{title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick={closeDialog}>
          ✕
        </button>
      </header>
      {children}
    </div>
  );
}

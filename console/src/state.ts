// What all views share: the time, who answers, messages, dialogs, the theme.
import { effect, signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { getInfo, renewSession, whenUnauthorized, type Info } from "./api";

/** Moves once a second; one clock for all, so that what is shown together agrees. */
export const now = signal(Date.now());

export const info = signal<Info | null>(null);
export const needsLogin = signal(false);

/** Whether the caller has a role; until that is known, yes. */
export const may = (role: "admin" | "control" | "submit"): boolean => info.value?.roles.includes(role) ?? true;

export interface Note {
  text: string;
  isBad: boolean;
  number: number;
}

export const note = signal<Note | null>(null);
let notes = 0;

/** Says something for some seconds, to those who hear, too. */
export function say(text: string, isBad = false): void {
  const number = ++notes;
  note.value = { text, isBad, number };
  setTimeout(() => {
    if (note.value?.number === number) note.value = null;
  }, isBad ? 9000 : 4500);
}

export const sayError = (error: unknown): void => say(error instanceof Error ? error.message : String(error), true);

/** The dialog that is open. */
export const dialog = signal<(() => ComponentChildren) | null>(null);
export const closeDialog = (): void => {
  dialog.value = null;
};

export interface Action {
  name: string;
  hint?: string;
  run: () => void;
}

/** What the view at hand adds to the command palette. */
export const viewActions = signal<Action[]>([]);

export type Theme = "system" | "light" | "dark";
const stored = (): Theme => {
  const found = typeof localStorage === "undefined" ? null : localStorage.getItem("theme");
  return found === "light" || found === "dark" ? found : "system";
};
export const theme = signal<Theme>(stored());

export function nextTheme(): void {
  theme.value = theme.value === "system" ? "light" : theme.value === "light" ? "dark" : "system";
  say(theme.value === "system" ? "Colours follow the system." : `Colours are ${theme.value}.`);
}

export function begin(): void {
  setInterval(() => {
    now.value = Date.now();
  }, 1000);
  effect(() => {
    const root = document.documentElement;
    if (theme.value === "system") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme.value);
    localStorage.setItem("theme", theme.value);
  });
  whenUnauthorized(() => {
    needsLogin.value = true;
  });
  setInterval(() => {
    if (info.value?.caller && !needsLogin.value) void renewSession().catch(() => undefined);
  }, RENEW_MS);
  void look();
}

/** A cookie lasts for an hour, and as long as its token if it is renewed. */
const RENEW_MS = 15 * 60_000;

/** Asks who answers. */
export async function look(): Promise<void> {
  try {
    info.value = await getInfo();
  } catch {
    // The views say what is refused; without an answer nothing is hidden.
  }
}

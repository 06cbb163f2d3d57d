import { defineConfig } from "vitest/config";

// `npm run dev` shows the sources against a service that runs: CONSOLE_API=http://127.0.0.1:8090.
const service = process.env.CONSOLE_API ?? "http://127.0.0.1:8090";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../src/fastrunner/web/console",
    emptyOutDir: true,
    // Everything is served by the service itself; small files inside of others would need a wider content policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: ["chrome123", "firefox120", "safari17.5"],
  },
  server: {
    proxy: { "/api": { target: service, changeOrigin: true }, "/openapi.json": { target: service, changeOrigin: true } },
  },
  test: { include: ["src/**/*.test.ts", "src/**/*.test.tsx"] },
});

import { Adapter } from "./adapter.js";

await new Adapter().run();
